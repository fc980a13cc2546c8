/**
 * Llama 3 (Meta's "Llama 3 model card and prompt formats"): a header per turn, text without white space around it, and
 * `<|eot_id|>` at its end. Tools are listed in the system turn and called as JSON with `parameters`, results come from
 * `ipython`, as Llama 3.1 has it. No date is written.
 */
import type { BuiltinTemplate } from '../builtin-templates.ts'

const source = `{%- set ns = namespace(system='') %}
{%- if messages and messages[0].role in ['system', 'developer'] %}
{%- set ns.system = messages[0].content | trim %}
{%- endif %}
{%- if tools %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{{- ns.system + ('\\n\\n' if ns.system else '') }}
{{- 'You may call these functions. Answer with {"name": ..., "parameters": {...}} to call one.\\n' }}
{%- for tool in tools %}
{{- '\\n' + (tool | tojson) }}
{%- endfor %}
{{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role in ['system', 'developer']) %}
{%- set role = 'system' if message.role == 'developer' else 'ipython' if message.role == 'tool' else message.role %}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
{%- if message.content is string %}
{{- message.content | trim }}
{%- endif %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{%- if message.content or not loop.first %}
{{- '\\n' }}
{%- endif %}
{{- '{"name": ' + (call.function.name | tojson) + ', "parameters": ' }}
{%- if call.function.arguments is string %}
{{- call.function.arguments }}
{%- else %}
{{- call.function.arguments | tojson }}
{%- endif %}
{{- '}' }}
{%- endfor %}
{%- endif %}
{{- '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}`

export const LLAMA3: BuiltinTemplate = {
  source,
  tokens: ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'],
  needsEos: false,
}
