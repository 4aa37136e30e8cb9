// SPDX-License-Identifier: Apache-2.0
// The extension module. The schema of each operator lies in its own folder, csrc/ops/<op>/<op>.cpp.
#include <Python.h>

// `import detectron_libra._C` only has to load this library: loading it runs the static initialisers of every
// translation unit, which register the operators with the dispatcher.
PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
