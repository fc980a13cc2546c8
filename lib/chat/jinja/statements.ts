/** Statements of a template as JavaScript functions, made once per template. */
import {
  type Arguments,
  compileArguments,
  compileExpression,
  describe,
  type Expression,
  filterOf,
} from './expressions.ts'
import { BLOCK_END, BLOCK_START } from './marks.ts'
import { type Runtime, Scope } from './runtime.ts'
import { isGenerationBlock, type Node } from './source.ts'
import {
  type Callable,
  iterate,
  type Keywords,
  Loop,
  Namespace,
  text,
  truthy,
  tuple,
  typeName,
  type Value,
} from './values.ts'

/** How a statement ends: as usual, or leaving the loop around it, or its round. */
type Outcome = 0 | 1 | 2
const BREAK: Outcome = 1
const CONTINUE: Outcome = 2

export type Statement = (runtime: Runtime, scope: Scope) => Outcome

export function compileBlock(nodes: readonly Node[]): Statement {
  const statements = nodes.filter(({ type }) => type !== 'Comment').map(compileStatement)
  return (runtime, scope) => {
    for (const statement of statements) {
      const outcome = statement(runtime, scope)
      if (outcome !== 0) return outcome
    }
    return 0
  }
}

function compileStatement(node: Node): Statement {
  switch (node.type) {
    case 'If':
      return conditional(node)
    case 'For':
      return loop(node)
    case 'Break':
      return () => BREAK
    case 'Continue':
      return () => CONTINUE
    case 'Set':
      return assignment(node)
    case 'Macro':
      return macroDefinition(node)
    case 'CallStatement':
      return isGenerationBlock(node.call) ? generation(node) : callBlock(node)
    case 'FilterStatement':
      return filterBlock(node)
    default:
      return output(node)
  }
}

function output(node: Node): Statement {
  if (node.type === 'StringLiteral') {
    const written: string = node.value
    return (runtime) => {
      runtime.write(written)
      return 0
    }
  }
  const expression = compileExpression(node)
  return (runtime, scope) => {
    runtime.step()
    runtime.write(text(expression(runtime, scope)))
    return 0
  }
}

function conditional(node: Node): Statement {
  const test = compileExpression(node.test)
  const [body, otherwise] = [compileBlock(node.body), compileBlock(node.alternate)]
  return (runtime, scope) => {
    runtime.step()
    return (truthy(test(runtime, scope)) ? body : otherwise)(runtime, scope)
  }
}

function loop(node: Node): Statement {
  const filtered = node.iterable.type === 'SelectExpression'
  const iterable = compileExpression(filtered ? node.iterable.lhs : node.iterable)
  const condition = filtered ? compileExpression(node.iterable.test) : undefined
  const bind = binding(node.loopvar)
  const [body, otherwise] = [compileBlock(node.body), compileBlock(node.defaultBlock)]
  return (runtime, scope) => {
    let items = iterate(iterable(runtime, scope))
    if (condition) {
      items = items.filter((item) => {
        runtime.step()
        const round = new Scope(scope)
        bind(round, item)
        return truthy(condition(runtime, round))
      })
    }
    if (items.length === 0) return otherwise(runtime, new Scope(scope))
    const state = new Loop(items)
    for (const [index, item] of items.entries()) {
      runtime.step()
      state.index0 = index
      const round = new Scope(scope)
      round.set('loop', state)
      bind(round, item)
      if (body(runtime, round) === BREAK) break
    }
    return 0
  }
}

type Binding = (scope: Scope, value: Value) => void

/** `a` or `a, b` on the left of an assignment or in a for. */
function binding(target: Node): Binding {
  if (target.type === 'Identifier') {
    const name: string = target.value
    return (scope, value) => scope.set(name, value)
  }
  if (target.type !== 'TupleLiteral') throw new SyntaxError(`cannot assign to ${target.type}`)
  const parts = (target.value as Node[]).map(binding)
  return (scope, value) => {
    const items = iterate(value)
    if (items.length < parts.length) {
      throw new Error(`not enough values to unpack (expected ${parts.length}, got ${items.length})`)
    }
    if (items.length > parts.length) throw new Error(`too many values to unpack (expected ${parts.length})`)
    for (const [index, bind] of parts.entries()) bind(scope, items[index])
  }
}

function assignment(node: Node): Statement {
  const filters: Node[] = []
  let target: Node = node.assignee
  for (; target.type === 'FilterExpression'; target = target.operand) filters.unshift(target.filter)
  const value = node.value ? compileExpression(node.value) : block(node.body, filters)
  const assign = target.type === 'MemberExpression' ? attributeAssignment(target) : localAssignment(target)
  return (runtime, scope) => {
    runtime.step()
    assign(runtime, scope, value(runtime, scope))
    return 0
  }
}

type Assignment = (runtime: Runtime, scope: Scope, value: Value) => void

function localAssignment(target: Node): Assignment {
  const bind = binding(target)
  return (_, scope, value) => bind(scope, value)
}

function attributeAssignment(target: Node): Assignment {
  if (target.computed || target.property.type !== 'Identifier') throw new SyntaxError('cannot assign to an item')
  const object = compileExpression(target.object)
  const name: string = target.property.value
  return (runtime, scope, value) => {
    const namespace = object(runtime, scope)
    if (!(namespace instanceof Namespace)) throw new Error('cannot assign attribute on non-namespace object')
    namespace.attributes.set(name, value)
  }
}

/** What a block writes, through filters. */
function block(body: readonly Node[], filters: readonly Node[]): Expression {
  const inner = compileBlock(body)
  const captured: Expression = (runtime, scope) => runtime.capture(() => inner(runtime, new Scope(scope)))
  return filters.reduce(filterOf, captured)
}

function filterBlock(node: Node): Statement {
  const filtered = block(node.body, [node.filter])
  return (runtime, scope) => {
    runtime.step()
    runtime.write(text(filtered(runtime, scope)))
    return 0
  }
}

function generation(node: Node): Statement {
  const body = block(node.body, [])
  return (runtime, scope) => {
    runtime.step()
    const written = text(body(runtime, scope))
    runtime.write(runtime.marked ? BLOCK_START + written + BLOCK_END : written)
    return 0
  }
}

/** Deepest nesting of macro calls: a template that calls itself for ever ends here. */
const MAX_DEPTH = 200
let depth = 0

interface Parameter {
  name: string
  fallback: Expression | undefined
}

/** A function that renders `body` with its parameters, in the scope where it was defined. */
function macro(name: string, parameters: readonly Node[], body: readonly Node[]) {
  const inner = compileBlock(body)
  const known: Parameter[] = parameters.map((node) =>
    node.type === 'Identifier'
      ? { name: node.value, fallback: undefined }
      : { name: node.key.value, fallback: compileExpression(node.value) },
  )
  const names = new Set(known.map((parameter) => parameter.name))
  const [takesMore, takesAny, takesCaller] = ['varargs', 'kwargs', 'caller'].map((word) => mentions(body, word))
  return (runtime: Runtime, scope: Scope): Callable =>
    (args, keywords) => {
      runtime.step()
      const inside = new Scope(scope)
      for (const [index, parameter] of known.entries()) {
        const byName = keywords?.has(parameter.name)
        if (byName && index < args.length)
          throw new Error(`macro '${name}' got multiple values for '${parameter.name}'`)
        if (byName) inside.set(parameter.name, keywords!.get(parameter.name))
        else if (index < args.length) inside.set(parameter.name, args[index])
        else inside.set(parameter.name, parameter.fallback?.(runtime, inside))
      }
      const others = new Map(
        [...(keywords ?? [])].filter(([key]) => !names.has(key) && !(key === 'caller' && takesCaller)),
      )
      if (args.length > known.length && !takesMore) {
        throw new Error(`macro '${name}' takes not more than ${known.length} argument(s)`)
      }
      if (others.size > 0 && !takesAny) {
        throw new Error(`macro '${name}' takes no keyword argument '${[...others.keys()][0]}'`)
      }
      if (takesMore) inside.set('varargs', tuple(...args.slice(known.length)))
      if (takesAny) inside.set('kwargs', others)
      if (takesCaller) inside.set('caller', keywords?.get('caller'))
      if (depth >= MAX_DEPTH) throw new Error(`macros of the chat template call each other more than ${MAX_DEPTH} deep`)
      depth++
      try {
        return runtime.capture(() => inner(runtime, inside))
      } finally {
        depth--
      }
    }
}

/** Whether a name is read anywhere in a subtree. */
function mentions(root: unknown, name: string): boolean {
  if (root instanceof Map) return mentions([...root].flat(), name)
  if (Array.isArray(root)) return root.some((child) => mentions(child, name))
  if (typeof root !== 'object' || root === null) return false
  const node = root as Node
  return (node.type === 'Identifier' && node.value === name) || mentions(Object.values(node), name)
}

function macroDefinition(node: Node): Statement {
  const name: string = node.name.value
  const define = macro(name, node.args, node.body)
  return (runtime, scope) => {
    scope.set(name, define(runtime, scope))
    return 0
  }
}

/** `{% call f(x) %}...{% endcall %}`: f gets the block as the macro `caller`. */
function callBlock(node: Node): Statement {
  const target = compileExpression(node.call.callee)
  const given: Arguments = compileArguments(node.call.args)
  const caller = macro('caller', node.callerArgs ?? [], node.body)
  return (runtime, scope) => {
    runtime.step()
    const callee = target(runtime, scope)
    if (typeof callee !== 'function')
      throw new Error(`${describe(node.call.callee)} is a ${typeName(callee)}, not a macro`)
    const { args, keywords } = given(runtime, scope)
    const withCaller: Keywords = new Map(keywords ?? [])
    withCaller.set('caller', caller(runtime, scope))
    runtime.write(text((callee as Callable)(args, withCaller)))
    return 0
  }
}
