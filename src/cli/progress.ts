/** One line on a terminal that says how far a long command is; elsewhere silence. */

export type Progress = {
  /** One more is done; `print` says so above the line. */
  done(print: () => void): void
  /** Takes the line away. */
  end(): void
}

/** With fewer VMs what is printed about each is progress enough. */
const silentVmsMax = 20
const eraseLine = '\r\u001B[K'

const erase = (): void => void process.stderr.write(eraseLine)

/** On stderr, and only where that is a terminal: data on stdout stays what it is. */
export function startProgress(total: number, isJson: boolean): Progress {
  const isShown =
    process.stderr.isTTY && process.env['TERM'] !== 'dumb' && !isJson && total > silentVmsMax
  let count = 0
  if (!isShown) return { done: (print) => print(), end: () => {} }
  const draw = (): void => void process.stderr.write(`\r${count} of ${total} VMs`)
  // Whoever says that Ctrl-C was heard begins on a line of its own.
  process.prependListener('SIGINT', erase)
  draw()
  return {
    done(print) {
      count += 1
      erase()
      print()
      draw()
    },
    end() {
      process.removeListener('SIGINT', erase)
      erase()
    },
  }
}
