/** What every child process of the tests shares: ready, wait for the barrier, work, report. */

/** Runs `work` once the parent says go, sends what it returns, and stays until the parent lets go. */
export async function atBarrier(prepare, work) {
  const prepared = await prepare()
  const go = new Promise((resolve) => process.once('message', resolve))
  process.send({ ready: true })
  const message = await go
  const result = await work(prepared, message)
  process.send({ result })
  await new Promise((resolve) => process.once('message', resolve))
  process.disconnect()
}
