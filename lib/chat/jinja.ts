/**
 * Jinja as Transformers runs it for chat templates. Lexer and parser are those of @huggingface/jinja; its interpreter
 * departs from Python in ways that change renderings (None, numbers, white space, scopes), so the tree is turned into
 * JavaScript functions with Python's meaning here. That is also what makes it fast: rows are read where they are.
 */
import { globals } from './jinja/globals.ts'
import { resetLimits } from './jinja/limits.ts'
import { Runtime, Scope } from './jinja/runtime.ts'
import { parseTemplate } from './jinja/source.ts'
import { compileBlock, type Statement } from './jinja/statements.ts'
import { dictGet } from './jinja/values.ts'

export { BLOCK_END, BLOCK_START } from './jinja/marks.ts'
export { hasGenerationTags } from './jinja/source.ts'
export { strftime } from './jinja/strftime.ts'

/** A compiled template. Rendering is a pure function of the variables and of the time that strftime_now tells. */
export class JinjaTemplate {
  readonly #run: Statement
  readonly #globals: Scope

  /** @throws Error with the parser's words where `source` does not parse. */
  constructor(source: string, now: Date) {
    this.#run = shallow(() => compileBlock(parseTemplate(source).body))
    this.#globals = globals(now)
  }

  /**
   * @param marked whether `{% generation %}` blocks stand between BLOCK_START and BLOCK_END
   * @throws Error whose message is what the template gave to raise_exception, or what Python would object to; also where
   * the template goes beyond the bounds on steps, nesting and length
   */
  render(variables: Record<string, unknown>, marked = false): string {
    resetLimits()
    const runtime = new Runtime(marked)
    const names = Object.keys(variables)
    const context = new Scope(this.#globals, new Map(names.map((name) => [name, dictGet(variables, name)])))
    shallow(() => this.#run(runtime, new Scope(context)))
    return runtime.out
  }
}

/** Runs what recurses as deep as templates and rows are nested. */
function shallow<T>(run: () => T): T {
  try {
    return run()
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new Error('the conversation or the chat template is nested too deeply', { cause: error })
  }
}
