/* What compilers need to be told, or they use more registers than there are. */
#pragma once

/* A pointer that is not derived from others: the distances of all rows of a block need too many registers. */
#define OPAQUE(pointer) ({ __typeof__(pointer) p = (pointer); __asm__("" : "+r"(p)); p; })

/* Keeps a vector in a register: compilers would read it from memory for each use. */
#if defined(__AVX512F__)
#define in_register(vector) __asm__("" : "+v"(vector))
#elif defined(__AVX__)
#define in_register(vector) __asm__("" : "+x"(vector))
#else
#define in_register(vector) ((void)(vector))
#endif

/* A function of its own, wherever it is called. */
#define APART static __attribute__((noinline, unused))
