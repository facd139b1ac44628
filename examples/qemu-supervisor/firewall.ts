/** The two nftables tables of one VM: what it may reach, and how it reaches the world. */
import { nftTable, type Resource, type Subnet } from 'vmledger'

/** `-` may not stand in a table's name. */
const nameOf = (vmId: string, what: string): string => `${vmId.replaceAll('-', '_')}_${what}`

/** No guest may ask for the metadata of the cloud that its host runs in. */
export const filterTable = (vmId: string, tap: string): Resource =>
  nftTable({
    name: nameOf(vmId, 'filter'),
    family: 'inet',
    rules: `  chain forward_vm {
    type filter hook forward priority 0; policy accept;
    iifname "${tap}" ip daddr 169.254.0.0/16 drop
  }`,
  })

export const natTable = (vmId: string, tap: string, { subnet }: Subnet): Resource =>
  nftTable({
    name: nameOf(vmId, 'nat'),
    rules: `  chain postrouting_vm {
    type nat hook postrouting priority 100;
    ip saddr ${subnet} oifname != "${tap}" masquerade
  }`,
  })
