/** What a rendering carries along: variables by scope, the text so far, and how much it may still do. */
import { checkLength } from './operators.ts'
import type { Value } from './values.ts'

/** Statements, loop rounds and macro calls in one rendering. Templates of models need a few dozen per message. */
export const MAX_STEPS = 5_000_000

export class Runtime {
  out = ''
  /** Whether generation blocks are marked. */
  readonly marked: boolean
  #steps = 0

  constructor(marked: boolean) {
    this.marked = marked
  }

  write(text: string): void {
    checkLength(this.out.length + text.length)
    this.out += text
  }

  /** @throws Error where the template does not come to an end */
  step(): void {
    if (++this.#steps > MAX_STEPS)
      throw new Error(`the chat template does more than ${MAX_STEPS} steps for one conversation`)
  }

  /** What `run` writes, as text of its own. */
  capture(run: () => void): string {
    const outside = this.out
    this.out = ''
    run()
    const inside = this.out
    this.out = outside
    return inside
  }
}

export class Scope {
  readonly variables: Map<string, Value>
  readonly parent: Scope | undefined

  constructor(parent?: Scope, variables = new Map<string, Value>()) {
    this.parent = parent
    this.variables = variables
  }

  get(name: string): Value {
    let scope: Scope | undefined = this
    do {
      const value = scope.variables.get(name)
      if (value !== undefined || scope.variables.has(name)) return value
      scope = scope.parent
    } while (scope)
    return undefined
  }

  set(name: string, value: Value): void {
    this.variables.set(name, value)
  }
}
