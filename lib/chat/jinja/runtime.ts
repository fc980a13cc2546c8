/** What a rendering carries along: variables by scope, and the text so far. */
import { checkText, step } from './limits.ts'
import type { Value } from './values.ts'

const MAX_OUTPUT = 1 << 26

export class Runtime {
  out = ''
  /** Whether generation blocks are marked. */
  readonly marked: boolean

  constructor(marked: boolean) {
    this.marked = marked
  }

  write(text: string): void {
    checkText(text.length)
    if (this.out.length + text.length > MAX_OUTPUT) {
      throw new Error(`the chat template writes more than ${MAX_OUTPUT} characters for one conversation`)
    }
    this.out += text
  }

  /** @throws Error where the template does not come to an end */
  step(): void {
    step()
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
