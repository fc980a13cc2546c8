/** Expressions of a template as JavaScript functions, made once per template. */
import { findFilter } from './filters.ts'
import { findMethod, methodsOf } from './methods.ts'
import { attribute, item, negate, OPERATORS, type Operator, slice } from './operators.ts'
import type { Runtime, Scope } from './runtime.ts'
import { GROUP, NEGATED_TEST, type Node, TEST } from './source.ts'
import { findTest } from './tests.ts'
import {
  type Callable,
  dictItems,
  equal,
  Float,
  isDict,
  isNumeric,
  iterate,
  type Keywords,
  text,
  truthy,
  tuple,
  typeName,
  type Value,
} from './values.ts'

export type Expression = (runtime: Runtime, scope: Scope) => Value

const CONSTANTS: Record<string, Value> = { true: true, True: true, false: false, False: false, none: null, None: null }
const COMPARISONS = ['==', '!=', '<', '<=', '>', '>=', 'in', 'not in']

/** @throws SyntaxError where the node means something that is not supported */
export function compileExpression(node: Node): Expression {
  switch (node.type) {
    case 'StringLiteral':
    case 'IntegerLiteral': {
      const value: Value = node.value
      return () => value
    }
    case 'FloatLiteral': {
      const value = Number.isInteger(node.value) ? new Float(node.value) : node.value
      return () => value
    }
    case 'Identifier':
      return identifier(node.value)
    case 'ArrayLiteral': {
      const items = compileAll(node.value)
      return (runtime, scope) => items.map((each) => each(runtime, scope))
    }
    case 'TupleLiteral': {
      const items = compileAll(node.value)
      return (runtime, scope) => tuple(...items.map((each) => each(runtime, scope)))
    }
    case 'ObjectLiteral':
      return dictLiteral(node.value)
    case 'UnaryExpression':
      return unary(node)
    case 'BinaryExpression':
      return binary(node)
    case 'Ternary': {
      const [condition, yes, no] = [node.condition, node.trueExpr, node.falseExpr].map(compileExpression) as Three
      return (runtime, scope) => (truthy(condition(runtime, scope)) ? yes : no)(runtime, scope)
    }
    case 'SelectExpression': {
      const [condition, yes] = [compileExpression(node.test), compileExpression(node.lhs)]
      return (runtime, scope) => (truthy(condition(runtime, scope)) ? yes(runtime, scope) : undefined)
    }
    case 'MemberExpression':
      return member(node)
    case 'CallExpression':
      return call(node)
    case 'FilterExpression':
      return filterOf(compileExpression(node.operand), node.filter)
    case 'TestExpression':
      return testOf(compileExpression(node.operand), node.test.value, node.negate, noArguments)
    default:
      throw new SyntaxError(`${node.type} is not supported`)
  }
}

type Three = [Expression, Expression, Expression]

function compileAll(nodes: readonly Node[]): Expression[] {
  return nodes.map(compileExpression)
}

function identifier(name: string): Expression {
  if (Object.hasOwn(CONSTANTS, name)) {
    const value = CONSTANTS[name]
    return () => value
  }
  return (_, scope) => scope.get(name)
}

function dictLiteral(entries: Map<Node, Node>): Expression {
  const pairs = [...entries].map(([key, value]) => [compileExpression(key), compileExpression(value)] as const)
  return (runtime, scope) => {
    const made = new Map<Value, Value>()
    for (const [key, value] of pairs) {
      const name = key(runtime, scope)
      // 1, 1.0 and true are one key; the first spelling stays.
      const known = isNumeric(name) ? [...made.keys()].find((other) => equal(other, name)) : undefined
      made.set(known ?? name, value(runtime, scope))
    }
    return made
  }
}

function unary(node: Node): Expression {
  const argument = compileExpression(node.argument)
  if (node.operator.value === 'not') return (runtime, scope) => !truthy(argument(runtime, scope))
  if (node.operator.value === '-') return (runtime, scope) => negate(argument(runtime, scope))
  return (runtime, scope) => negate(negate(argument(runtime, scope)))
}

function binary(node: Node): Expression {
  const [left, right] = [compileExpression(node.left), compileExpression(node.right)]
  const name: string = node.operator.value
  if (name === 'and') {
    return (runtime, scope) => {
      const value = left(runtime, scope)
      return truthy(value) ? right(runtime, scope) : value
    }
  }
  if (name === 'or') {
    return (runtime, scope) => {
      const value = left(runtime, scope)
      return truthy(value) ? value : right(runtime, scope)
    }
  }
  if (isComparison(node) && isComparison(node.left)) return chain(node)
  const apply = OPERATORS[name]
  if (!apply) throw new SyntaxError(`unknown operator ${name}`)
  return (runtime, scope) => {
    const [a, b] = [left(runtime, scope), right(runtime, scope)]
    if (name === '+' && (a === undefined || b === undefined))
      throw new Error(`${describe(a === undefined ? node.left : node.right)} is undefined`)
    return apply(a, b)
  }
}

function isComparison(node: Node): boolean {
  return node.type === 'BinaryExpression' && COMPARISONS.includes(node.operator.value)
}

/** `a < b < c` means `a < b and b < c`. */
function chain(last: Node): Expression {
  const links: { apply: Operator; right: Expression }[] = []
  let node = last
  for (; isComparison(node); node = node.left) {
    links.unshift({ apply: OPERATORS[node.operator.value]!, right: compileExpression(node.right) })
  }
  const first = compileExpression(node)
  return (runtime, scope) => {
    let left = first(runtime, scope)
    for (const { apply, right } of links) {
      const value = right(runtime, scope)
      if (!apply(left, value)) return false
      left = value
    }
    return true
  }
}

function member(node: Node): Expression {
  const object = compileExpression(node.object)
  const where = () => describe(node.object)
  if (node.property.type === 'SliceExpression') {
    const ends = ['start', 'stop', 'step'].map((key) => {
      const end: Node | undefined = node.property[key]
      return end ? compileExpression(end) : () => undefined
    }) as Three
    return (runtime, scope) => {
      const [start, stop, step] = ends.map((end) => end(runtime, scope))
      return slice(object(runtime, scope), start, stop, step)
    }
  }
  if (node.computed) {
    const key = compileExpression(node.property)
    return (runtime, scope) => {
      const container = object(runtime, scope)
      const name = key(runtime, scope)
      const found = item(container, name, where)
      return found === undefined && typeof name === 'string' && !(isDict(container) && name in container)
        ? attribute(container, name, where, methodsOf)
        : found
    }
  }
  // foo.0 is foo[0].
  if (node.property.type === 'IntegerLiteral') {
    const index: number = node.property.value
    return (runtime, scope) => item(object(runtime, scope), index, where)
  }
  const name: string = node.property.value
  return (runtime, scope) => attribute(object(runtime, scope), name, where, methodsOf)
}

/** Arguments of a call, evaluated in their order. */
export type Arguments = (runtime: Runtime, scope: Scope) => { args: Value[]; keywords: Keywords }

const NONE: { args: Value[]; keywords: Keywords } = { args: [], keywords: undefined }
const noArguments: Arguments = () => NONE

export function compileArguments(nodes: readonly Node[]): Arguments {
  if (nodes.length === 0) return () => ({ args: [], keywords: undefined })
  const parts = nodes.map((node) => {
    const spread = node.type === 'SpreadExpression' || node.type === 'KeywordSpreadExpression'
    const inner: Node = spread ? node.argument : node.type === 'KeywordArgumentExpression' ? node.value : node
    return { type: node.type, name: node.key?.value as string, value: compileExpression(inner) }
  })
  return (runtime, scope) => {
    const args: Value[] = []
    let keywords: Keywords
    for (const { type, name, value } of parts) {
      const result = value(runtime, scope)
      if (type === 'SpreadExpression') args.push(...iterate(result))
      else if (type === 'KeywordArgumentExpression') {
        keywords ??= new Map()
        keywords.set(name, result)
      } else if (type === 'KeywordSpreadExpression') {
        if (!isDict(result)) throw new Error(`argument after ** must be a mapping, not ${typeName(result)}`)
        keywords ??= new Map()
        for (const [key, entry] of dictItems(result)) keywords.set(text(key), entry)
      } else args.push(result)
    }
    return { args, keywords }
  }
}

function call(node: Node): Expression {
  const given = compileArguments(node.args)
  const { callee } = node
  if (callee.type === 'MemberExpression' && !callee.computed && callee.property.type === 'Identifier') {
    const object = compileExpression(callee.object)
    const name: string = callee.property.value
    const where = () => describe(callee.object)
    return (runtime, scope) => {
      const self = object(runtime, scope)
      const method = findMethod(self, name)
      if (method) {
        const { args, keywords } = given(runtime, scope)
        return method(self, args, keywords)
      }
      return invoke(attribute(self, name, where, methodsOf), given(runtime, scope), () => describe(callee))
    }
  }
  const target = compileExpression(callee)
  return (runtime, scope) => invoke(target(runtime, scope), given(runtime, scope), () => describe(callee))
}

function invoke(target: Value, { args, keywords }: { args: Value[]; keywords: Keywords }, where: () => string): Value {
  if (typeof target === 'function') return (target as Callable)(args, keywords)
  if (target === undefined) throw new Error(`${where()} is undefined`)
  throw new Error(`'${typeName(target)}' object is not callable`)
}

/** `operand | filter`; also what stands for a test with arguments. */
export function filterOf(operand: Expression, node: Node): Expression {
  const isCall = node.type === 'CallExpression'
  const name: string = (isCall ? node.callee : node).value
  if (typeof name !== 'string') throw new SyntaxError('a filter must be a name')
  if (name === GROUP) return operand
  const given = isCall ? compileArguments(node.args) : noArguments
  if (name.startsWith(TEST)) {
    const negated = name.startsWith(NEGATED_TEST)
    return testOf(operand, name.slice((negated ? NEGATED_TEST : TEST).length), negated, given)
  }
  const filter = findFilter(name)
  return (runtime, scope) => {
    // Jinja, too, minds an unknown filter only where it is reached.
    if (!filter) throw new Error(`the filter "${name}" is not supported`)
    const value = operand(runtime, scope)
    const { args, keywords } = given(runtime, scope)
    return filter(value, args, keywords)
  }
}

function testOf(operand: Expression, name: string, negated: boolean, given: Arguments): Expression {
  const test = findTest(name)
  return (runtime, scope) => {
    if (!test) throw new Error(`the test "${name}" is not supported`)
    return test(operand(runtime, scope), given(runtime, scope).args) !== negated
  }
}

/** An expression as its author wrote it, for messages. */
export function describe(node: Node): string {
  if (node.type === 'Identifier') return `'${node.value}'`
  if (node.type !== 'MemberExpression') return 'a value'
  const parts: string[] = []
  let at: Node = node
  for (; at.type === 'MemberExpression'; at = at.object) {
    const { property, computed } = at
    if (!computed) parts.unshift(`.${property.value}`)
    else parts.unshift(property.value === undefined ? '[...]' : `[${JSON.stringify(property.value)}]`)
  }
  return `'${at.type === 'Identifier' ? at.value : '...'}${parts.join('')}'`
}
