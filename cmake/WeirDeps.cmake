# SPDX-License-Identifier: Apache-2.0
# System libraries by pkg-config; the three large engines (ONNX Runtime, DuckDB, XGBoost) are opened
# with dlopen by the one module that owns them, so that a command which does not need them starts fast
# and the gateway never maps a database. Only their headers are needed here.
find_package(PkgConfig REQUIRED)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(FYAML REQUIRED IMPORTED_TARGET libfyaml)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(SSL REQUIRED IMPORTED_TARGET libssl)
pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)

foreach(header onnxruntime_c_api.h duckdb.h)
    if(NOT EXISTS "${WEIR_DEPS}/include/${header}")
        message(FATAL_ERROR "${WEIR_DEPS}/include/${header} is missing: run scripts/bootstrap first")
    endif()
endforeach()
