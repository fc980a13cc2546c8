/** Which backend a run computes on, and in which precision. */
import { availableParallelism } from 'node:os'
import { TunesmithError, type Warning } from '../errors.ts'
import type { Addon, BackendName, BackendStatus, ComputeType } from '../native/addon.ts'

export interface Device {
  backend: BackendName
  compute: ComputeType
  threads: number
  warnings: Warning[]
}

export interface DeviceChoice {
  device: 'auto' | BackendName
  precision: 'auto' | ComputeType
  /** 0: every core this process may use. */
  threads: number
}

/** The order in which 'auto' takes what is there. */
const preference: readonly BackendName[] = ['cuda', 'cpu', 'reference']

/**
 * Settles what 'auto' means on this machine. Bfloat16 is the default only where it is faster than float32.
 *
 * @throws TunesmithError `ERR_BACKEND_UNAVAILABLE` with the loader's reason, `ERR_UNSUPPORTED_DTYPE`
 */
export function chooseDevice(addon: Pick<Addon, 'backends'>, choice: DeviceChoice): Device {
  const found = new Map(addon.backends().map((status) => [status.name, status]))
  const warnings: Warning[] = []
  const name = choice.device === 'auto' ? firstAvailable(found, warnings) : choice.device
  const status = found.get(name)
  if (!status?.available) {
    const others = [...found.values()].filter(({ available }) => available).map(({ name }) => `'${name}'`)
    throw new TunesmithError(
      'ERR_BACKEND_UNAVAILABLE',
      `device '${name}' is not available: ${status?.reason ?? 'unknown backend'}. Available: ${others.join(', ')}. ` +
        "Run 'tunesmith doctor' for what is missing.",
    )
  }
  const compute = choice.precision === 'auto' ? (status.fastBfloat16 ? 'bfloat16' : 'float32') : choice.precision
  if (name === 'reference' && compute === 'bfloat16') {
    throw new TunesmithError(
      'ERR_UNSUPPORTED_DTYPE',
      "device 'reference' does not compute in bfloat16; set precision to 'float32' or device to 'cpu'.",
    )
  }
  const cores = availableParallelism()
  if (choice.threads > cores) {
    const message = `threads is ${choice.threads}, but this process may use ${cores} cores: threads that share a core wait for one another`
    warnings.push({ code: 'WARN_TOO_MANY_THREADS', message })
  }
  return { backend: name, compute, threads: choice.threads || (status.threads ?? 1), warnings }
}

function firstAvailable(found: Map<BackendName, BackendStatus>, warnings: Warning[]): BackendName {
  const name = preference.find((candidate) => found.get(candidate)?.available) ?? 'reference'
  const reason = found.get('cuda')?.reason ?? 'not installed'
  // Most machines have no GPU and nobody wants to hear of it; one with a driver has, and training is slow without it.
  if (name !== 'cuda' && !/not installed|no NVIDIA driver/.test(reason)) {
    warnings.push({
      code: 'WARN_CUDA_UNAVAILABLE',
      message: `training runs on the ${name} backend: ${reason}. Run 'tunesmith doctor' for what is missing.`,
    })
  }
  if (name === 'reference') {
    warnings.push({
      code: 'WARN_REFERENCE_BACKEND',
      message:
        `training runs on the slow reference backend, because the CPU backend does not load: ${found.get('cpu')?.reason}. ` +
        "Run 'tunesmith doctor' for what is missing.",
    })
  }
  return name
}
