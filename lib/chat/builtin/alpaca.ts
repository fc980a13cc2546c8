/**
 * Stanford Alpaca's prompt (tatsu-lab/stanford_alpaca, README): a preamble, `### Instruction:` and `### Response:`. A
 * system turn takes the place of the preamble. Answers end in the tokenizer's eos. Alpaca's prompt ends in
 * "### Response:"; the newline after it, with which its training data began every answer, belongs to the prompt here.
 */
import type { BuiltinTemplate } from '../builtin-templates.ts'

const source = `{%- if tools %}
{{- raise_exception('The "alpaca" template has no tools; use chatml or llama3, or a template of your own') }}
{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls %}
{{- raise_exception('The "alpaca" template has no tool calls; use chatml or llama3, or a template of your own') }}
{%- endif %}
{%- if loop.first and message.role != 'system' and message.role != 'developer' %}
{{- 'Below is an instruction that describes a task. Write a response that appropriately completes the request.\\n\\n' }}
{%- endif %}
{%- if message.role == 'system' or message.role == 'developer' %}
{{- message.content | trim + '\\n\\n' }}
{%- elif message.role == 'user' %}
{{- '### Instruction:\\n' + message.content | trim + '\\n\\n' }}
{%- elif message.role == 'assistant' %}
{{- '### Response:\\n' + message.content | trim + eos_token + '\\n\\n' }}
{%- else %}
{{- raise_exception('The "alpaca" template has no role ' + message.role) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '### Response:\\n' }}
{%- endif %}`

export const ALPACA: BuiltinTemplate = { source, tokens: [], needsEos: true }
