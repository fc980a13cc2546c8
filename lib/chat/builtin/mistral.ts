/**
 * Mistral's instruction format (Mistral-7B-Instruct-v0.2's model card): `[INST] ... [/INST]` around user turns, answers
 * after a space and ended by eos. A system turn stands before the first user's words. The generation prompt is the text
 * itself, so the space belongs to the answer.
 */
import type { BuiltinTemplate } from '../builtin-templates.ts'

const source = `{%- if tools %}
{{- raise_exception('The "mistral" template has no tools; use chatml or llama3, or a template of your own') }}
{%- endif %}
{%- set ns = namespace(system='', turns=0) %}
{%- for message in messages %}
{%- if message.tool_calls %}
{{- raise_exception('The "mistral" template has no tool calls; use chatml or llama3, or a template of your own') }}
{%- endif %}
{%- if message.role == 'system' or message.role == 'developer' %}
{%- if not loop.first %}
{{- raise_exception('The "mistral" template has a system turn only at the beginning') }}
{%- endif %}
{%- set ns.system = message.content + '\\n\\n' %}
{%- elif message.role == 'user' %}
{%- if ns.turns % 2 == 1 %}
{{- raise_exception('The "mistral" template needs user and assistant turns in alternation') }}
{%- endif %}
{{- '[INST] ' + (ns.system if ns.turns == 0 else '') + message.content + ' [/INST]' }}
{%- set ns.turns = ns.turns + 1 %}
{%- elif message.role == 'assistant' %}
{%- if ns.turns % 2 == 0 %}
{{- raise_exception('The "mistral" template needs user and assistant turns in alternation') }}
{%- endif %}
{{- ' ' + message.content + eos_token }}
{%- set ns.turns = ns.turns + 1 %}
{%- else %}
{{- raise_exception('The "mistral" template has no role ' + message.role) }}
{%- endif %}
{%- endfor %}`

export const MISTRAL: BuiltinTemplate = { source, tokens: [], needsEos: true }
