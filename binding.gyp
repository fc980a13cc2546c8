# node-gyp's entry point. The build itself is described once, in CMakeLists.txt; this file only forwards to it.
{ "targets": [ { "target_name": "tunesmith_cmake", "type": "none", "actions": [ {
    "action_name": "cmake_js", "inputs": ["CMakeLists.txt"],
    "outputs": ["<(PRODUCT_DIR)/always-run"],
    "action": ["node", "scripts/build-native.mjs"] } ] } ] }
