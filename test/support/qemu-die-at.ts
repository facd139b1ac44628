// Loaded into the example supervisor before it starts: kills it by SIGKILL once an event is durable (DIE_AT).
import { Ledger, type RecordedEvent } from 'vmledger'

const point = process.env['DIE_AT'] ?? ''
// Of this class only the supervisor makes an instance; it is asked to listen before the first event.
const { createVm } = Ledger.prototype
Ledger.prototype.createVm = function (options) {
  this.subscribe((event) => {
    if (nameOf(event) === point) process.kill(process.pid, 'SIGKILL')
  })
  return createVm.call(this, options)
}

/** `vm.created`, or with a resource `resource.acquired tap`. */
function nameOf({ type, data }: RecordedEvent): string {
  const key = 'key' in data && type.startsWith('resource.') ? String(data.key) : null
  return key === null ? type : `${type} ${key.replace(/vm_[0-9a-z]{8}_|fc-[0-9a-z]{8}/, '')}`
}
