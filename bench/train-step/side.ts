/** One side of the benchmark: a long-lived process that answers one JSON line per command. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Batch, Check, Hello, Peak, Profile, Steps } from './step.ts'

export class Side {
  readonly name: string
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string>
  hello!: Hello

  private constructor(name: string, command: string, args: readonly string[]) {
    this.name = name
    this.#process = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]()
    // Shown only when the process fails: Transformers draws progress bars there.
    this.#process.stderr!.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-4000)
    })
    this.#process.on('error', (error) => {
      this.#stderr += error.message
    })
  }

  #stderr = ''

  static async start(name: string, command: string, args: readonly string[]): Promise<Side> {
    const side = new Side(name, command, args)
    side.hello = (await side.#next()) as Hello
    return side
  }

  batch(batch: Batch): Promise<{ rows: number }> {
    return this.#ask({ do: 'batch', ...batch })
  }

  /** Loss and gradient norm of the batch; nothing is applied. */
  check(): Promise<Check> {
    return this.#ask({ do: 'check' })
  }

  steps(count: number): Promise<Steps> {
    return this.#ask({ do: 'step', count })
  }

  memory(): Promise<Peak> {
    return this.#ask({ do: 'memory' })
  }

  /** Times per op since the last call; our side only. */
  profile(): Promise<Profile> {
    return this.#ask({ do: 'profile' })
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null) return
    const exit = once(this.#process, 'exit')
    this.#process.stdin!.end()
    await exit
  }

  #ask<T>(command: object): Promise<T> {
    this.#process.stdin!.write(`${JSON.stringify(command)}\n`)
    return this.#next() as Promise<T>
  }

  async #next(): Promise<unknown> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error(`the ${this.name} side ended:\n${this.#stderr}`)
    return JSON.parse(value)
  }
}
