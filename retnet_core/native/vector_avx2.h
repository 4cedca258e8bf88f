// The types of vector.h as two registers of 32 bytes. Of its own 64-byte vectors GCC keeps none in registers where the processor has only
// half as wide ones: every operation goes through memory, which costs ten times as much.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace retnet {

constexpr int kLanes = 16;
#ifdef __AVX512VL__
constexpr bool kManyRegisters = true;  // 32 of them
#else
constexpr bool kManyRegisters = false;
#endif
typedef float FloatHalf __attribute__((vector_size(32)));
typedef int32_t IntegerHalf __attribute__((vector_size(32)));

struct Floats {
  FloatHalf low, high;
};
struct Integers {
  IntegerHalf low, high;
};

#define RETNET_EACH(Result, Vector, op) \
  inline Result operator op(Vector x, Vector y) { return {x.low op y.low, x.high op y.high}; }
#define RETNET_ONTO(Vector, op) \
  inline Vector& operator op##=(Vector& x, Vector y) { return x = x op y; }
RETNET_EACH(Floats, Floats, +)
RETNET_EACH(Floats, Floats, -)
RETNET_EACH(Floats, Floats, *)
RETNET_EACH(Floats, Floats, /)
RETNET_EACH(Integers, Floats, <)
RETNET_EACH(Integers, Integers, +)
RETNET_EACH(Integers, Integers, -)
RETNET_EACH(Integers, Integers, &)
RETNET_EACH(Integers, Integers, <=)
RETNET_ONTO(Floats, +)
RETNET_ONTO(Floats, -)
RETNET_ONTO(Floats, *)
RETNET_ONTO(Integers, +)
#undef RETNET_EACH
#undef RETNET_ONTO
inline Floats operator-(Floats x) { return {-x.low, -x.high}; }
inline Integers operator~(Integers x) { return {~x.low, ~x.high}; }
inline Integers operator<<(Integers x, int places) { return {x.low << places, x.high << places}; }

inline Floats load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store(float* to, Floats value) {
  _mm256_storeu_ps(to, value.low);
  _mm256_storeu_ps(to + 8, value.high);
}
inline Floats all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Integers all(int32_t value) { return {value - IntegerHalf{}, value - IntegerHalf{}}; }
inline Floats larger(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline Floats smaller(Floats a, Floats b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline Floats floats(Integers a) { return {__builtin_convertvector(a.low, FloatHalf), __builtin_convertvector(a.high, FloatHalf)}; }
inline Integers bits(Floats a) { return {reinterpret_cast<IntegerHalf>(a.low), reinterpret_cast<IntegerHalf>(a.high)}; }
inline Floats of_bits(Integers a) { return {reinterpret_cast<FloatHalf>(a.low), reinterpret_cast<FloatHalf>(a.high)}; }
inline Integers places() { return {IntegerHalf{0, 1, 2, 3, 4, 5, 6, 7}, IntegerHalf{8, 9, 10, 11, 12, 13, 14, 15}}; }

// a b + c, rounded once.
inline Floats fused(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)}; }

// Integers of −128 … 127 as bytes.
inline void store_bytes(int8_t* to, Integers value) {
  const __m256i pairs = _mm256_permute4x64_epi64(
      _mm256_packs_epi32(reinterpret_cast<__m256i>(value.low), reinterpret_cast<__m256i>(value.high)), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
}

}  // namespace retnet
