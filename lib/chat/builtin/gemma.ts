/**
 * Gemma (Google's "Gemma formatting and system instructions"): `<start_of_turn>`, `user` or `model`, `<end_of_turn>`.
 * There is no system role; as the document recommends, its text stands before the first user's words.
 */
import type { BuiltinTemplate } from '../builtin-templates.ts'

const source = `{%- if tools %}
{{- raise_exception('The "gemma" template has no tools; use chatml or llama3, or a template of your own') }}
{%- endif %}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
{%- if message.tool_calls %}
{{- raise_exception('The "gemma" template has no tool calls; use chatml or llama3, or a template of your own') }}
{%- endif %}
{%- if message.role == 'system' or message.role == 'developer' %}
{%- if not loop.first %}
{{- raise_exception('The "gemma" template has a system turn only at the beginning') }}
{%- endif %}
{%- set ns.system = message.content | trim + '\\n\\n' %}
{%- elif message.role == 'user' or message.role == 'assistant' %}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' }}
{{- (ns.system if message.role == 'user' else '') + message.content | trim + '<end_of_turn>\\n' }}
{%- if message.role == 'user' %}
{%- set ns.system = '' %}
{%- endif %}
{%- else %}
{{- raise_exception('The "gemma" template has no role ' + message.role) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<start_of_turn>model\\n' }}
{%- endif %}`

export const GEMMA: BuiltinTemplate = { source, tokens: ['<start_of_turn>', '<end_of_turn>'], needsEos: false }
