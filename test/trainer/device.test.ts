import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import type { BackendStatus } from '../../lib/index.ts'
import { chooseDevice } from '../../lib/trainer/device.ts'

const status = (name: BackendStatus['name'], available: boolean, more: object = {}): BackendStatus =>
  ({ name, available, ...(available ? { threads: 2 } : { reason: 'no such library' }), ...more }) as BackendStatus
const machine = (...found: BackendStatus[]) => ({ backends: () => found })
const notBuilt = { reason: 'the cuda backend is not installed' }
const auto = { device: 'auto', precision: 'auto', threads: 0 } as const

describe('choice of the device', () => {
  it('takes the fastest that is there, in the precision it is fast at', () => {
    const both = machine(
      status('cuda', false, notBuilt),
      status('cpu', true, { fastBfloat16: true }),
      status('reference', true),
    )
    assert.deepEqual(chooseDevice(both, auto), { backend: 'cpu', compute: 'bfloat16', threads: 2, warnings: [] })
    const slow = machine(status('cpu', true, { fastBfloat16: false }))
    assert.equal(chooseDevice(slow, auto).compute, 'float32')
    assert.equal(chooseDevice(slow, { ...auto, precision: 'bfloat16' }).compute, 'bfloat16')
  })

  it('says so where only the reference is left, and what is missing', () => {
    const { backend, warnings } = chooseDevice(machine(status('cpu', false), status('reference', true)), auto)
    assert.equal(backend, 'reference')
    assert.match(warnings[0]!.message, /slow reference backend.*no such library/)
    const cuda = () => chooseDevice(machine(status('cuda', false), status('cpu', true)), { ...auto, device: 'cuda' })
    assert.throws(cuda, { code: 'ERR_BACKEND_UNAVAILABLE', message: /no such library. Available: 'cpu'/ })
  })

  it('warns where a GPU cannot be used, not where there is none', () => {
    const warned = (reason: string) =>
      chooseDevice(machine(status('cuda', false, { reason }), status('cpu', true)), auto).warnings
    assert.deepEqual(warned('the cuda backend is not installed: no /x.so'), [])
    assert.deepEqual(warned('the cuda backend cannot run: no NVIDIA driver (libcuda.so.1) is installed'), [])
    const [warning] = warned('the NVIDIA driver is too old: it is for CUDA 12.4')
    assert.equal(warning!.code, 'WARN_CUDA_UNAVAILABLE')
    assert.match(warning!.message, /runs on the cpu backend: the NVIDIA driver is too old/)
  })

  it('warns of more threads than cores', () => {
    const cpu = machine(status('cpu', true))
    const cores = availableParallelism()
    assert.deepEqual(chooseDevice(cpu, { ...auto, threads: cores }).warnings, [])
    const { threads, warnings } = chooseDevice(cpu, { ...auto, threads: cores + 1 })
    assert.equal(threads, cores + 1)
    assert.equal(warnings[0]!.code, 'WARN_TOO_MANY_THREADS')
  })
})
