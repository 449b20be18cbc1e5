// sanitizer.h -- TV_EMULATION_ASAN: AddressSanitizer is there, as gcc or as clang says it.
#ifndef TV_TESTS_EMULATION_SANITIZER_H
#define TV_TESTS_EMULATION_SANITIZER_H
#if defined(__SANITIZE_ADDRESS__)
#define TV_EMULATION_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TV_EMULATION_ASAN
#endif
#endif
#endif
