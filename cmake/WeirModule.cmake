# SPDX-License-Identifier: Apache-2.0
# weir_module(NAME SOURCES… [USES…]): one static library per folder of src/, sources listed by hand.
# weir_unit(NAME SOURCES… USES…): one test program per unit, run by ctest.

add_library(weir_flags INTERFACE)
target_include_directories(weir_flags INTERFACE "${CMAKE_SOURCE_DIR}/src")
target_include_directories(weir_flags SYSTEM INTERFACE "${WEIR_DEPS}/include")
target_compile_definitions(weir_flags INTERFACE _GNU_SOURCE WEIR_VERSION="${PROJECT_VERSION}")
target_compile_options(weir_flags INTERFACE
    -Wall -Wextra -Wshadow -Wconversion -Wvla -Wstrict-prototypes -Wmissing-declarations
    -Wno-sign-conversion -fno-strict-aliasing -fstack-protector-strong
    $<$<C_COMPILER_ID:GNU>:-Wjump-misses-init>
    $<$<C_COMPILER_ID:Clang>:-Wthread-safety -Wno-gnu-statement-expression>)
target_link_libraries(weir_flags INTERFACE m pthread dl)
if(WEIR_WERROR)
    target_compile_options(weir_flags INTERFACE -Werror)
endif()
if(WEIR_SANITIZE)
    target_compile_options(weir_flags INTERFACE -fsanitize=${WEIR_SANITIZE} -fno-omit-frame-pointer)
    # The instrumented code misleads gcc about ranges; the other presets have these warnings on.
    target_compile_options(weir_flags INTERFACE
        $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation;-Wno-array-bounds;-Wno-stringop-overread>)
    target_link_options(weir_flags INTERFACE -fsanitize=${WEIR_SANITIZE})
endif()
if(WEIR_FUZZ)
    target_compile_options(weir_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined)
    target_link_options(weir_flags INTERFACE -fsanitize=address,undefined)
endif()
if(WEIR_COVERAGE)
    target_compile_options(weir_flags INTERFACE --coverage)
    target_link_options(weir_flags INTERFACE --coverage)
endif()

function(weir_module name)
    cmake_parse_arguments(ARG "" "" "SOURCES;USES" ${ARGN})
    add_library(weir_${name} STATIC ${ARG_SOURCES})
    target_link_libraries(weir_${name} PUBLIC weir_flags)
    foreach(use ${ARG_USES})
        target_link_libraries(weir_${name} PUBLIC weir_${use})
    endforeach()
endfunction()

# Tests include tests/unit/check.h; the working folder is the source folder of the repository.
function(weir_unit name)
    cmake_parse_arguments(ARG "" "" "SOURCES;USES;LABELS" ${ARGN})
    add_executable(test_${name} ${ARG_SOURCES})
    target_include_directories(test_${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests/unit")
    target_link_libraries(test_${name} PRIVATE weir_flags)
    foreach(use ${ARG_USES})
        target_link_libraries(test_${name} PRIVATE weir_${use})
    endforeach()
    add_test(NAME ${name} COMMAND test_${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
    set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS "unit;${ARG_LABELS}")
endfunction()
