export { derive, loadMasterKey, type MasterKey, MasterKeyProblem, masterKeyFrom } from "./master-key.ts";
export {
  createTenantKey,
  createTenantKeyring,
  SealBroken,
  type SealedPlace,
  type TenantKey,
  type TenantKeyring,
  unwrapTenantKey,
  wrapTenantKey,
} from "./tenant-key.ts";
