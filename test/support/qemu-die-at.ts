// Loaded into the example supervisor before it starts: kills it by SIGKILL once an event is durable (DIE_AT).
import { type CreateVmOptions, Ledger, type RecordedEvent, type Vm } from 'vmledger'

const point = process.env['DIE_AT'] ?? ''
type CreateVm = (this: Ledger, options: CreateVmOptions) => Promise<Vm>
const createVm: CreateVm = Reflect.get(Ledger.prototype, 'createVm')
// Before its first event, the supervisor's own ledger gets a listener that knows no mercy.
Ledger.prototype.createVm = function (options) {
  this.subscribe((event) => {
    if (nameOf(event) === point) process.kill(process.pid, 'SIGKILL')
  })
  return createVm.call(this, options)
}

/** `vm.created`, or of a resource `resource.acquired tap:`, without what is drawn by lot. */
function nameOf({ type, data }: RecordedEvent): string {
  if (!type.startsWith('resource.') || !('key' in data)) return type
  return `${type} ${data.key.replace(/vm_[0-9a-z]{8}_|fc-[0-9a-z]{8}/, '')}`
}
