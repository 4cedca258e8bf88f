// Sixteen floats or integers at a time, in the compiler's own vector types: AVX-512, AVX2, NEON or plain scalars come out of it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

// RETNET_HALF: 32 bytes at a time, though the processor has registers of 64.
#if defined(__AVX2__) && (!defined(__AVX512F__) || defined(RETNET_HALF))
#define RETNET_HALVES
#include "vector_avx2.h"

namespace retnet {
#else
namespace retnet {

constexpr int kLanes = 16;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));

inline Floats load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }
inline Floats all(float value) { return value - Floats{}; }
inline Integers all(int32_t value) { return value - Integers{}; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats floats(Integers a) { return __builtin_convertvector(a, Floats); }
inline Integers bits(Floats a) { return reinterpret_cast<Integers>(a); }
inline Floats of_bits(Integers a) { return reinterpret_cast<Floats>(a); }
inline Integers places() { return Integers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

// a b + c, rounded once where the processor can. Where two products are added, it says which of them is not rounded by itself.
inline Floats fused(Floats a, Floats b, Floats c) {
#ifdef __AVX512F__
  return reinterpret_cast<Floats>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#else
  return a * b + c;
#endif
}

// Integers of −128 … 127 as bytes.
inline void store_bytes(int8_t* to, Integers value) {
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  const Bytes bytes = __builtin_convertvector(value, Bytes);
  std::memcpy(to, &bytes, sizeof bytes);
}
#endif
inline Floats absolute(Floats a) { return of_bits(bits(a) & all(0x7fffffff)); }

// The nearest integers, ties to even, of |x| < 2²². Added to 1.5 × 2²³, a float has no fraction left, and its low bits are the integer.
inline Integers nearest(Floats x) { return bits(x + all(12582912.0f)) - all(0x4b400000); }

template <class Vector, class Number, class Fold>
inline Number fold(Vector a, Number start, Fold&& with) {
  Number values[kLanes];
  std::memcpy(values, &a, sizeof values);
  // In halves, as the processor would: the order is the same on every machine.
  for (int width = kLanes / 2; width; width /= 2)
    for (int i = 0; i < width; i++) values[i] = with(values[i], values[i + width]);
  return with(values[0], start);
}
inline float sum(Floats a) { return fold(a, 0.0f, [](float x, float y) { return x + y; }); }
inline int32_t sum(Integers a) { return fold(a, int32_t{0}, [](int32_t x, int32_t y) { return x + y; }); }
inline float largest(Floats a) { return fold(a, -INFINITY, [](float x, float y) { return x > y ? x : y; }); }

// a · b; `length` is a multiple of 16.
inline float dot(const float* a, const float* b, int64_t length) {
  Floats total{};
  for (int64_t i = 0; i < length; i += kLanes) total += load(a + i) * load(b + i);
  return sum(total);
}

// eˣ within two units of the last place, by the polynomial of Cephes' expf; 0 below −87.3.
inline Floats exponential(Floats x) {
  const Floats low = all(-87.3f);
  const Integers lost = x < low;
  x = smaller(larger(x, low), all(88.0f));
  const Integers power = nearest(x * all(1.44269504088896341f));
  x -= floats(power) * all(0.693359375f);
  x += floats(power) * all(2.12194440e-4f);
  Floats value = all(1.9875691500e-4f);
  for (const float term : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    value = value * x + all(term);
  value = value * (x * x) + x + all(1.0f);
  value *= of_bits((power + all(127)) << 23);
  return of_bits(bits(value) & ~lost);
}

inline Floats swish(Floats x) { return x / (all(1.0f) + exponential(-x)); }

// y = x / √(mean(x²) + eps) ⊙ weight
inline void rms_norm(const float* x, const float* weight, int64_t length, float eps, float* y) {
  const Floats scale = all(1.0f / std::sqrt(dot(x, x, length) / static_cast<float>(length) + eps));
  for (int64_t i = 0; i < length; i += kLanes) store(y + i, load(x + i) * scale * load(weight + i));
}

// Sums of a tile must fit the registers: 32 of 64 bytes with AVX-512, elsewhere 16 of 32 bytes or 32 of 16.
#if defined(RETNET_HALVES)
constexpr int kProductRows = 5, kProductColumns = kManyRegisters ? 2 : 1;
#elif defined(__AVX512F__)
constexpr int kProductRows = 5, kProductColumns = 4;
#else
constexpr int kProductRows = 3, kProductColumns = 1;
#endif

// `Rows` rows of y (+)= a b. a: [rows, inner], b: [inner, 16 · Columns], y: [rows, 16 · Columns], with their row strides.
template <int Rows, int Columns, bool Add>
inline void product_tile(const float* a, int64_t wide_a, const float* b, int64_t wide_b, int64_t inner, float* y, int64_t wide_y) {
  Floats sums[Rows][Columns];
  for (int r = 0; r < Rows; r++)
    for (int c = 0; c < Columns; c++) sums[r][c] = Add ? load(y + r * wide_y + c * kLanes) : Floats{};
  for (int64_t k = 0; k < inner; k++) {
    Floats right[Columns];
    for (int c = 0; c < Columns; c++) right[c] = load(b + k * wide_b + c * kLanes);
    for (int r = 0; r < Rows; r++)
      for (int c = 0; c < Columns; c++) sums[r][c] += all(a[r * wide_a + k]) * right[c];
  }
  for (int r = 0; r < Rows; r++)
    for (int c = 0; c < Columns; c++) store(y + r * wide_y + c * kLanes, sums[r][c]);
}

template <int Columns, bool Add>
inline void product_strip(const float* a, int64_t wide_a, const float* b, int64_t wide_b, int64_t rows, int64_t inner, float* y, int64_t wide_y) {
  int64_t r = 0;
  for (; r + kProductRows <= rows; r += kProductRows)
    product_tile<kProductRows, Columns, Add>(a + r * wide_a, wide_a, b, wide_b, inner, y + r * wide_y, wide_y);
  for (; r < rows; r++) product_tile<1, Columns, Add>(a + r * wide_a, wide_a, b, wide_b, inner, y + r * wide_y, wide_y);
}

// y (+)= a b, `columns` a multiple of 16. An element's terms are added in the same order whatever the shapes are.
template <bool Add>
inline void product(const float* a, int64_t wide_a, const float* b, int64_t wide_b, int64_t rows, int64_t inner, int64_t columns, float* y, int64_t wide_y) {
  int64_t c = 0;
  for (; c + kProductColumns * kLanes <= columns; c += kProductColumns * kLanes)
    product_strip<kProductColumns, Add>(a, wide_a, b + c, wide_b, rows, inner, y + c, wide_y);
  for (; c < columns; c += kLanes) product_strip<1, Add>(a, wide_a, b + c, wide_b, rows, inner, y + c, wide_y);
}

}  // namespace retnet
