/** One side of a benchmark: a long-lived process that answers one JSON line per command. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export class BenchProcess {
  readonly name: string
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string>
  #stderr = ''

  constructor(name: string, command: string, args: readonly string[], env: Record<string, string> = {}) {
    this.name = name
    this.#process = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } })
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]()
    // Shown only when the process fails: Transformers draws progress bars there.
    this.#process.stderr!.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-4000)
    })
    this.#process.on('error', (error) => {
      this.#stderr += error.message
    })
  }

  ask<T>(command: object): Promise<T> {
    this.#process.stdin!.write(`${JSON.stringify(command)}\n`)
    return this.next()
  }

  /** What the process says unasked, at its start. */
  async next<T>(): Promise<T> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error(`the ${this.name} side ended:\n${this.#stderr}`)
    return JSON.parse(value) as T
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null) return
    const exit = once(this.#process, 'exit')
    this.#process.stdin!.end()
    await exit
  }
}
