/** Which variables a template reads from outside. */
import { isGenerationBlock, type Node } from './source.ts'

/** Names that rendering, loops and macros bring with them. */
const OWN = ['loop', 'caller', 'varargs', 'kwargs', 'self', 'true', 'True', 'false', 'False', 'none', 'None']

/**
 * Names that `program` reads and does not assign itself, or assigns after a look at whether they are there (`is defined`,
 * `default`): what only a caller can set, or can set otherwise.
 */
export function settableNames(program: Node): Set<string> {
  const names: Names = { read: new Set(), assigned: new Set(OWN), asked: new Set() }
  visit(program, names)
  return new Set([...names.read].filter((name) => !names.assigned.has(name) || names.asked.has(name)))
}

interface Names {
  read: Set<string>
  assigned: Set<string>
  /** Read by a test or filter that minds nothing being there. */
  asked: Set<string>
}

function visit(node: unknown, names: Names): void {
  if (node instanceof Map) {
    for (const [key, value] of node) visitAll([key, value], names)
  } else if (Array.isArray(node)) {
    visitAll(node, names)
  } else if (typeof node === 'object' && node !== null && 'type' in node) {
    visitNode(node as Node, names)
  }
}

function visitAll(nodes: readonly unknown[], names: Names): void {
  for (const node of nodes) visit(node, names)
}

function visitNode(node: Node, names: Names): void {
  switch (node.type) {
    case 'Identifier':
      names.read.add(node.value)
      return
    case 'MemberExpression':
      visit(node.object, names)
      if (node.computed) visit(node.property, names)
      return
    case 'FilterExpression':
      ask(node.operand, filterName(node.filter), names)
      visit(node.operand, names)
      visitFilter(node.filter, names)
      return
    case 'FilterStatement':
      visitFilter(node.filter, names)
      visit(node.body, names)
      return
    // Operators are tokens, some of them of the same type as names.
    case 'BinaryExpression':
      visitAll([node.left, node.right], names)
      return
    case 'UnaryExpression':
      visit(node.argument, names)
      return
    case 'TestExpression':
      ask(node.operand, node.test.value, names)
      visit(node.operand, names)
      return
    case 'KeywordArgumentExpression':
      visit(node.value, names)
      return
    case 'Set':
      assign(node.assignee, names)
      visitAll([node.value, node.body], names)
      return
    case 'For':
      assign(node.loopvar, names)
      visitAll([node.iterable, node.body, node.defaultBlock], names)
      return
    case 'Macro':
      names.assigned.add(node.name.value)
      for (const argument of node.args as Node[]) {
        assign(argument.type === 'KeywordArgumentExpression' ? argument.key : argument, names)
        if (argument.type === 'KeywordArgumentExpression') visit(argument.value, names)
      }
      visit(node.body, names)
      return
    case 'CallStatement':
      if (!isGenerationBlock(node.call)) visit(node.call, names)
      for (const argument of (node.callerArgs ?? []) as Node[]) assign(argument, names)
      visit(node.body, names)
      return
    default:
      visitAll(Object.values(node), names)
  }
}

function ask(operand: Node, by: string, { asked }: Names): void {
  if (operand.type === 'Identifier' && ['defined', 'undefined', 'default', 'd'].includes(by)) asked.add(operand.value)
}

function filterName(filter: Node): string {
  return (filter.type === 'CallExpression' ? filter.callee : filter).value
}

/** A filter's name is no variable; its arguments may be. */
function visitFilter(filter: Node, names: Names): void {
  if (filter.type === 'CallExpression') visit(filter.args, names)
}

function assign(target: Node, names: Names): void {
  if (target.type === 'Identifier') names.assigned.add(target.value)
  else if (target.type === 'TupleLiteral') for (const part of target.value as Node[]) assign(part, names)
  else visit(target, names)
}
