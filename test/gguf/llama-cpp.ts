/** llama.cpp in a process of its own, asked about an exported file. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('llama-cpp', import.meta.url))

export interface NextToken {
  best: number
  probabilities: Record<number, number>
}

interface Introduction {
  bos: number | null
  eos: number | null
  eot: number | null
  /** Tokens. */
  context: number
  template: string | null
}

/** `describe` for tests that need llama.cpp; scripts/test.sh installs it. */
export function describeLlamaCpp(title: string, body: () => void): void {
  describe(title, () => {
    if (existsSync(`${folder}/node_modules/node-llama-cpp`)) return body()
    if (process.env.CI) throw new Error(`${folder} is not installed: in CI the tests with llama.cpp must run`)
    it('needs llama.cpp', function () {
      console.log(
        `      skipped: npm install --no-package-lock --ignore-scripts --omit=optional --prefix ${folder} has not been run`,
      )
      this.skip()
    })
  })
}

export class LlamaCpp {
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly introduction: Promise<Introduction>

  constructor(file: string, context = 256) {
    this.#process = spawn(process.execPath, [`${folder}/answer.mjs`, file, `${context}`], {
      stdio: ['pipe', 'pipe', process.env.LLAMA_LOG ? 'inherit' : 'ignore'],
    })
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]()
    this.introduction = this.#answer<Introduction>()
    this.introduction.catch(() => {})
  }

  /** Token ids of a text, without bos. `special`: control tokens in it are tokens. */
  async tokenize(text: string, special = false): Promise<number[]> {
    await this.introduction
    return this.#ask({ text, special })
  }

  /** What llama.cpp expects after each of `tokens`. */
  async next(tokens: readonly number[]): Promise<NextToken[]> {
    await this.introduction
    return this.#ask({ tokens })
  }

  close(): void {
    this.#process.kill()
  }

  async #ask<T>(question: object): Promise<T> {
    this.#process.stdin!.write(`${JSON.stringify(question)}\n`)
    return this.#answer<T>()
  }

  async #answer<T>(): Promise<T> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error('llama.cpp has ended')
    const answer = JSON.parse(value)
    if (answer.error !== undefined) throw new Error(`llama.cpp: ${answer.error}`)
    return answer
  }
}
