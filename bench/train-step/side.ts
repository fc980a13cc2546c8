/** One side of the benchmark. */
import { BenchProcess } from '../process.ts'
import type { Batch, Check, Hello, Peak, Profile, Steps } from './step.ts'

export class Side extends BenchProcess {
  hello!: Hello

  static async start(name: string, command: string, args: readonly string[]): Promise<Side> {
    const side = new Side(name, command, args)
    side.hello = await side.next()
    return side
  }

  batch(batch: Batch): Promise<{ rows: number }> {
    return this.ask({ do: 'batch', ...batch })
  }

  /** Loss and gradient norm of the batch; nothing is applied. */
  check(): Promise<Check> {
    return this.ask({ do: 'check' })
  }

  steps(count: number): Promise<Steps> {
    return this.ask({ do: 'step', count })
  }

  memory(): Promise<Peak> {
    return this.ask({ do: 'memory' })
  }

  /** Times per op since the last call; our side only. */
  profile(): Promise<Profile> {
    return this.ask({ do: 'profile' })
  }
}
