/**
 * Zephyr (HuggingFaceH4/zephyr-7b-beta's model card): role tags in plain text on a line of their own, every turn ends in
 * the tokenizer's eos.
 */
import type { BuiltinTemplate } from '../builtin-templates.ts'

const source = `{%- if tools %}
{{- raise_exception('The "zephyr" template has no tools; use chatml or llama3, or a template of your own') }}
{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls %}
{{- raise_exception('The "zephyr" template has no tool calls; use chatml or llama3, or a template of your own') }}
{%- endif %}
{%- if message.role in ['system', 'user', 'assistant'] %}
{{- '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}
{%- else %}
{{- raise_exception('The "zephyr" template has no role ' + message.role) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\\n' }}
{%- endif %}`

export const ZEPHYR: BuiltinTemplate = { source, tokens: [], needsEos: true }
