// The parameters of low-rank adapters, and where they join the matmuls of the decoder.
#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/rng.h"
#include "model/parameters.h"

namespace tunesmith {

namespace {

[[noreturn]] void refuse(const AdapterModule& module, const std::string& text) {
  throw CodedError("ERR_INVALID_ARGUMENT", "adapter of " + module.name + ": " + text);
}

}  // namespace

bool is_adapter(const std::string& name) { return name.find(".lora_") != std::string::npos; }

// Modules in the order of the projections, so that the A's of one input are neighbours; all A's before all B's, so that
// each kind is one span for the optimizer.
void Parameters::add_adapters() {
  std::vector<AdapterModule>& modules = options_.adapters.modules;
  if (modules.empty()) return;
  std::map<std::string, size_t> order;
  for (const Parameter& p : parameters_) order.emplace(p.name, order.size());
  std::set<std::string> covered;
  for (const AdapterModule& module : modules) {
    if (module.parts.empty()) refuse(module, "it covers no projection");
    if (module.rank < 1) refuse(module, "its rank is " + std::to_string(module.rank));
    for (const std::string& part : module.parts) {
      const Parameter& weight = find(part + ".weight");
      if (weight.is_vector || !part.starts_with("layers.")) refuse(module, part + " is no projection of a layer");
      if (weight.value.cols != find(module.parts[0] + ".weight").value.cols)
        refuse(module, part + " reads another input than " + module.parts[0]);
      if (!covered.insert(part).second) refuse(module, part + " has an adapter already");
    }
  }
  std::sort(modules.begin(), modules.end(), [&](const AdapterModule& a, const AdapterModule& b) {
    return order.at(a.parts[0] + ".weight") < order.at(b.parts[0] + ".weight");
  });
  const auto rows_of = [&](const AdapterModule& module) {
    int64_t rows = 0;
    for (const std::string& part : module.parts) rows += find(part + ".weight").value.rows;
    return rows;
  };
  for (const AdapterModule& module : modules)
    add(module.name + ".lora_a", false, module.rank, find(module.parts[0] + ".weight").value.cols);
  for (const AdapterModule& module : modules) add(module.name + ".lora_b", false, rows_of(module), module.rank);
  if (!options_.adapters.dora) return;
  for (const AdapterModule& module : modules) add(module.name + ".lora_magnitude", true, 1, rows_of(module));
}

// The adapters of the matmul that joins `parts`, with views as far as there is memory; null where it has none.
LinearAdapter* Parameters::adapter_of(const std::string& prefix, const std::vector<std::string>& parts,
                                      const Linear& linear) {
  if (options_.adapters.modules.empty()) return nullptr;
  std::vector<AdapterSlice> slices;
  std::vector<std::string> names;
  int64_t first = 0, ranks = 0;
  for (const std::string& part : parts) {
    const int64_t count = find(prefix + part + ".weight").value.rows;
    for (const AdapterModule& module : options_.adapters.modules) {
      const auto found = std::find(module.parts.begin(), module.parts.end(), prefix + part);
      if (found == module.parts.end()) continue;
      const Parameter &a = find(module.name + ".lora_a"), &b = find(module.name + ".lora_b");
      if (!names.empty() && names.back() == a.name) {
        slices.back().count += count;
        continue;
      }
      slices.push_back({first, count, ranks, module.scale, a.value, {}, {}, {}, {}, nullptr});
      names.push_back(a.name);
      ranks += module.rank;
      // Rows of B that belong to this matmul start after those of the module's parts before this one.
      int64_t row = 0;
      for (auto before = module.parts.begin(); before != found; ++before) row += find(*before + ".weight").value.rows;
      AdapterSlice& slice = slices.back();
      slice.b = {b.value.slice_rows(row, 0), compute_, nullptr};
      if (b.trained()) slice.b_grad = b.grad.slice_rows(row, 0);
      if (!options_.adapters.dora) continue;
      const Parameter& m = find(module.name + ".lora_magnitude");
      slice.magnitude = m.value.slice_cols(row, 0);
      if (m.trained()) slice.magnitude_grad = m.grad.slice_cols(row, 0);
    }
    first += count;
  }
  if (slices.empty()) return nullptr;
  if (options_.adapters.dora && (!linear.trained.empty() || !linear.trained_bias.empty()))
    throw CodedError("ERR_INVALID_ARGUMENT", prefix + parts[0] + " trains and has a DoRA adapter: one of the two");

  const auto [entry, created] = adapters_.try_emplace(prefix + parts[0]);
  LinearAdapter& adapter = entry->second;
  for (size_t i = 0; i < slices.size(); i++) {
    AdapterSlice& slice = slices[i];
    slice.b.master.rows = slice.count;
    if (slice.b_grad) slice.b_grad.rows = slice.count;
    for (Tensor* view : {&slice.magnitude, &slice.magnitude_grad})
      if (*view) *view = vector(view->data, view->dtype, slice.count);
    if (!created) slice.prepared = adapter.slices[i].prepared;
    slice.b.prepared = slice.prepared;
  }
  // The slices keep their place: the arena writes their `prepared` later.
  if (created)
    adapter.slices = std::move(slices);
  else
    std::copy(slices.begin(), slices.end(), adapter.slices.begin());
  const Tensor& top = adapter.slices[0].a;
  adapter.a = {matrix(top.data, top.dtype, ranks, top.cols), compute_, adapter.prepared};
  adapter.trained_a = trained_rows(names);
  const std::string last = "layers." + std::to_string(spec_.layers - 1) + ".";
  adapter.supervised = prefix.starts_with(last) && parts[0] != "k";
  // q and [k; v] of the last layer read the same activation and drop the same elements of it.
  adapter.input = hash_name(prefix + (parts[0] == "k" ? "q" : parts[0]));
  return &adapter;
}

void Parameters::reserve_adapters(const Backend& backend, Arena& arena) {
  const auto prepare = [&](void*& memory, const Tensor& weight) {
    const size_t bytes = backend.linear_prepared_bytes({weight.rows, weight.cols, compute_, adapter_use()});
    if (bytes) arena.reserve(MemoryKind::kPrepared, memory, bytes);
  };
  for (Linear* linear : linears()) {
    if (!linear->adapter) continue;
    LinearAdapter& adapter = *linear->adapter;
    prepare(adapter.prepared, adapter.a.master);
    for (AdapterSlice& slice : adapter.slices) prepare(slice.prepared, slice.b.master);
    if (!options_.adapters.dora) continue;
    for (Tensor* view : {&adapter.norm, &adapter.gain})
      arena.reserve(MemoryKind::kScratch, *view, wide(compute_), 1, linear->weight.master.rows);
  }
}

}  // namespace tunesmith
