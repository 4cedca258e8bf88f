// A tile of linear.h's product in 256-bit registers, which GCC makes poorly of its own 64-byte vectors: the same numbers, bit for bit.
//
// With AVX-VNNI one instruction adds four products to each sum. Without it they are |inputs| × (± weights): pairs of them fit 16 bits, so
// nothing is lost of the inputs' eighth bit, at the price of two instructions more.
#pragma once

#include <immintrin.h>

namespace retnet {

#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
#define RETNET_VNNI
constexpr bool kUnsigned = true;  // the instruction wants one side unsigned: the weights as they are
inline __m256i four_products(__m256i sums, __m256i weights, __m256i inputs) {
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(sums, weights, inputs);
#else
  return _mm256_dpbusd_epi32(sums, weights, inputs);
#endif
}
#else
constexpr bool kUnsigned = false;
#endif

template <int Rows, int Columns, bool Add>
inline void multiply_tile(const Linear& w, const uint8_t* weight, const Inputs& x, float* y) {
  static_assert(Columns == 1);
  const int64_t groups = w.inputs / kGroup;
  __m256 sums[Rows][2];
  for (int m = 0; m < Rows; m++) sums[m][0] = sums[m][1] = _mm256_setzero_ps();
  for (int64_t group = 0; group < groups; group++, weight += kTileBytes) {
    __m256i parts[Rows][2];
    for (int m = 0; m < Rows; m++)
      parts[m][0] = parts[m][1] = kUnsigned ? _mm256_set1_epi32(-x.excess[m * groups + group]) : _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int k = 0; k < kGroup / 4; k++) {
      const auto* four = reinterpret_cast<const __m256i*>(weight + k * kFour);
      __m256i stored[2] = {_mm256_loadu_si256(four), _mm256_loadu_si256(four + 1)};
      if (!kUnsigned)
        for (__m256i& half : stored) half = _mm256_xor_si256(half, _mm256_set1_epi8(-128));
      for (int m = 0; m < Rows; m++) {
        int32_t steps;
        std::memcpy(&steps, x.steps + m * w.inputs + group * kGroup + 4 * k, 4);
        const __m256i in = _mm256_set1_epi32(steps);
#ifdef RETNET_VNNI
        for (int half = 0; half < 2; half++) parts[m][half] = four_products(parts[m][half], stored[half], in);
#else
        const __m256i size = _mm256_abs_epi8(in);
        for (int half = 0; half < 2; half++) {
          const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(stored[half], in));
          parts[m][half] = _mm256_add_epi32(parts[m][half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
#endif
      }
    }
    for (int half = 0; half < 2; half++) {
      const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(weight + kGroupBytes) + half);
      const __m256 scales = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(stored), 16));
      for (int m = 0; m < Rows; m++) {
        const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(x.scales[m * groups + group]));
        sums[m][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(parts[m][half]), scale, sums[m][half]);
      }
    }
  }
  for (int m = 0; m < Rows; m++)
    for (int half = 0; half < 2; half++) {
      float* to = y + m * w.outputs + 8 * half;
      _mm256_storeu_ps(to, Add ? _mm256_add_ps(_mm256_loadu_ps(to), sums[m][half]) : sums[m][half]);
    }
}

}  // namespace retnet
