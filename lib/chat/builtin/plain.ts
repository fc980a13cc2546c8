/**
 * Written dialogue, for base models without chat tokens: nothing in it is foreign to a model that has read plain text.
 * Names stand on their own line, because a prompt that ended in "Assistant: " would split the space from the word it
 * belongs to in most vocabularies. Assistant turns end in the tokenizer's eos.
 */
import type { BuiltinTemplate } from '../builtin-templates.ts'

const source = `{%- if tools %}
{{- 'Tools:\\n' }}
{%- for tool in tools %}
{{- (tool | tojson) + '\\n' }}
{%- endfor %}
{{- '\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'system' or message.role == 'developer' %}
{{- message.content | trim + '\\n\\n' }}
{%- elif message.role == 'user' %}
{{- 'User:\\n' + message.content | trim + '\\n\\n' }}
{%- elif message.role == 'tool' %}
{{- 'Tool:\\n' + message.content | trim + '\\n\\n' }}
{%- elif message.role == 'assistant' %}
{{- 'Assistant:\\n' }}
{%- if message.content is string %}
{{- message.content | trim }}
{%- endif %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{%- if message.content or not loop.first %}
{{- '\\n' }}
{%- endif %}
{{- 'Call: {"name": ' + (call.function.name | tojson) + ', "arguments": ' }}
{%- if call.function.arguments is string %}
{{- call.function.arguments }}
{%- else %}
{{- call.function.arguments | tojson }}
{%- endif %}
{{- '}' }}
{%- endfor %}
{%- endif %}
{{- eos_token + '\\n\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'Assistant:\\n' }}
{%- endif %}`

export const PLAIN: BuiltinTemplate = { source, tokens: [], needsEos: true }
