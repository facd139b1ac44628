/** The public face. */
export type { AbandonOptions, Abandonment } from './abandon.ts'
export type { DiskOptions, DiskReport } from './admission.ts'
export { type Clock } from './clock.ts'
export {
  BugError,
  CorruptEventError,
  type ErrorCode,
  IllegalTransitionError,
  LedgerError,
  ResourceExhaustedError,
} from './contract/errors.ts'
export { doctor, type DoctorOptions } from './doctor.ts'
export { catalogue } from './contract/catalogue.ts'
export type { EventData, EventType, RecordedEvent } from './contract/events.ts'
export { type Phase, phases } from './contract/phases.ts'
export { secret } from './contract/redact.ts'
export type { Identity, Outcome, ProcessIdentity, Resource } from './contract/resources.ts'
export type { HeldResource, VmContext, VmState } from './contract/state.ts'
export { classifyDisk, type DiskThresholds, type DiskVerdict } from './disk/classify.ts'
export type { ForeignDirOptions, ForeignDirReport } from './foreign.ts'
export { linuxHost } from './host/linux/host.ts'
export type {
  Created,
  Driver,
  DriverContext,
  ForeignHands,
  ForeignTarget,
  ForeignUse,
  Host,
  HostCheck,
  KeptLogs,
  Listed,
  Observed,
  Place,
  Released,
  ReleaseRequest,
  Tagged,
  Verdict,
} from './host/port.ts'
export { directory, fileCopy, nftTable, overlay, socket, tap, tapName } from './host/resources.ts'
export type { VmEventInput } from './draft.ts'
export { defaultCache, defaultHome } from './home.ts'
export type {
  Image,
  ImageFinding,
  ImageGcFile,
  ImageGcReport,
  ImageName,
  ImageVerification,
  NamedPath,
  NamedPaths,
  NewImage,
  NewTag,
  PinOptions,
} from './images/answers.ts'
export { Ledger, openLedger } from './ledger.ts'
export type { CreateVmOptions, EventsOptions, LedgerOptions, ListFilter } from './ledger-options.ts'
export type { Logger } from './logger.ts'
export { allowedTypes, phaseTransitions } from './machines/fold.ts'
export { vmMachine } from './machines/vm.ts'
export type { OrphanOptions, OrphanReport } from './orphans.ts'
export { type ImageGcOptions, type Images, type ImagesOptions, openImages } from './open-images.ts'
export type { ReconcilePassOptions, ReconcilerOptions } from './reconcile/options.ts'
export type { Reconciler } from './reconcile/reconciler.ts'
export { type Outlook, outlook, type Seen } from './reconcile/outlook.ts'
export type { Finding, RebuildResult, Verification, VmSummary } from './projections/answers.ts'
export type { AdoptableVm, Recovery } from './recover.ts'
export type { PruneOptions, RemovalReport, RemoveOptions } from './removal.ts'
export type { ReplayStep, ReplayUntil } from './replay.ts'
export { CleanupError, type FailedStep, type ReconcileReport } from './reconcile/report.ts'
export { defaultSubnetPool, type SubnetPool } from './subnets.ts'
export type { CloseOptions, Vm } from './vm.ts'
export type { Acquired, ResourceRef, Subnet } from './vm-resources.ts'
export type { SpawnVmmOptions, StopOptions } from './vmm.ts'
