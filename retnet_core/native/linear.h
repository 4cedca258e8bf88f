// y = x Wᵀ with 8-bit weights and 8-bit inputs, a scale for every 64 of them, sums in exact 32-bit integers.
//
// Groups of 64 keep one large input from taking the resolution of all others. A row of y depends on its row of x alone, bit for
// bit: not on the other rows of a batch, not on their number, not on the number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#include "team.h"
#include "vector.h"

namespace retnet {

constexpr int kGroup = 64;                           // inputs that share a scale
constexpr int kTile = kLanes;                        // outputs side by side
constexpr int kFour = 4 * kTile;                     // bytes of four inputs' weights of a tile
constexpr int kGroupBytes = kGroup * kTile;          // weights of a tile in one group
constexpr int kTileBytes = kGroupBytes + 2 * kTile;  // with their scales

// Tiles whose sums, in integers and in floats, fit the registers together with the weights.
#if defined(RETNET_HALVES)
constexpr int kRows = kManyRegisters ? 8 : 4, kColumns = 1;
#elif defined(__AVX512F__)
constexpr int kRows = 6, kColumns = 2;
#else
constexpr int kRows = 2, kColumns = 1;
#endif

// Packed: for each 16 outputs, for each 64 inputs: [16 fours of inputs][16 outputs][4 inputs] as step + 128, then 16 scales in bfloat16.
struct Linear {
  const uint8_t* packed = nullptr;
  int64_t outputs = 0, inputs = 0;

  int64_t tile_bytes() const { return inputs / kGroup * kTileBytes; }
};

inline int64_t packed_bytes(int64_t outputs, int64_t inputs) { return outputs / kTile * (inputs / kGroup) * kTileBytes; }

inline void pack(const float* weight, int64_t outputs, int64_t inputs, uint8_t* packed) {
  for (int64_t tile = 0; tile < outputs / kTile; tile++)
    for (int64_t group = 0; group < inputs / kGroup; group++, packed += kTileBytes)
      for (int n = 0; n < kTile; n++) {
        const float* row = weight + (tile * kTile + n) * inputs + group * kGroup;
        float peak = 0;
        for (int k = 0; k < kGroup; k++) peak = std::max(peak, std::fabs(row[k]));
        // Rounded up to bfloat16 before it is used: so the rounding costs nothing, and no step passes 127.
        float scale = peak / 127;
        uint32_t bits;
        std::memcpy(&bits, &scale, 4);
        bits = (bits + 0xffff) & 0xffff0000u;
        std::memcpy(&scale, &bits, 4);
        const auto half = static_cast<uint16_t>(bits >> 16);
        std::memcpy(packed + kGroupBytes + 2 * n, &half, 2);
        for (int k = 0; k < kGroup; k++) {
          const int step = scale > 0 ? static_cast<int>(std::lrint(row[k] / scale)) : 0;
          packed[k / 4 * kFour + n * 4 + k % 4] = static_cast<uint8_t>(std::clamp(step, -127, 127) + 128);
        }
      }
}

// Rows of inputs as steps of their group's scale. `excess` is 128 × the sum of a group's steps: what weights that carry 128 add too much.
struct Inputs {
  int8_t* steps;    // [rows, inputs]
  float* scales;    // [rows, inputs / 64]
  int32_t* excess;  // [rows, inputs / 64]
};

inline void quantize_group(const float* x, const Inputs& to, int64_t group) {
  Floats values[kGroup / kLanes], peaks{};
  for (int i = 0; i < kGroup / kLanes; i++) {
    values[i] = load(x + i * kLanes);
    peaks = larger(peaks, absolute(values[i]));
  }
  const float peak = largest(peaks);
  const Floats inverse = all(peak > 0 ? 127 / peak : 0);
  Integers total{};
  for (int i = 0; i < kGroup / kLanes; i++) {
    const Integers steps = nearest(values[i] * inverse);
    total += steps;
    store_bytes(to.steps + group * kGroup + i * kLanes, steps);
  }
  to.scales[group] = peak / 127;
  to.excess[group] = 128 * sum(total);
}

#ifdef RETNET_HALVES

}  // namespace retnet

#include "linear_avx2.h"

namespace retnet {

#else

// Adds to each of 16 sums the products of its four weights with the four inputs.
struct Dot {
#if defined(__AVX512VNNI__)
  static constexpr bool kUnsigned = true;  // the instruction wants one side unsigned: the weights as they are
  static Integers add(Integers sums, const uint8_t* weights, const int8_t* inputs) {
    int32_t four;
    std::memcpy(&four, inputs, 4);
    return reinterpret_cast<Integers>(
        _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), _mm512_loadu_si512(weights), _mm512_set1_epi32(four)));
  }
#elif defined(__ARM_FEATURE_DOTPROD)
  static constexpr bool kUnsigned = false;
  static Integers add(Integers sums, const uint8_t* weights, const int8_t* inputs) {
    int32_t four;
    std::memcpy(&four, inputs, 4);
    const int8x16_t in = vreinterpretq_s8_s32(vdupq_n_s32(four));
    int32x4_t quarters[4];
    std::memcpy(quarters, &sums, sizeof quarters);
    for (int quarter = 0; quarter < 4; quarter++) {
      const int8x16_t w = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(weights + 16 * quarter), vdupq_n_u8(128)));
      quarters[quarter] = vdotq_s32(quarters[quarter], w, in);
    }
    std::memcpy(&sums, quarters, sizeof quarters);
    return sums;
  }
#else
  static constexpr bool kUnsigned = true;
  static Integers add(Integers sums, const uint8_t* weights, const int8_t* inputs) {
    for (int n = 0; n < kTile; n++)
      for (int k = 0; k < 4; k++) sums[n] += weights[4 * n + k] * inputs[k];
    return sums;
  }
#endif
};

inline Floats scales_of(const uint8_t* group) {
  typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
  Halves halves;
  std::memcpy(&halves, group + kGroupBytes, sizeof halves);
  return reinterpret_cast<Floats>(__builtin_convertvector(halves, Integers) << 16);
}

template <int Rows, int Columns, bool Add>
inline void multiply_tile(const Linear& w, const uint8_t* weight, const Inputs& x, float* y) {
  // So few sums would wait for each other: two of each, which integers allow.
  constexpr bool kSplit = Rows * Columns <= 2;
  const int64_t groups = w.inputs / kGroup;
  Floats sums[Rows][Columns];
  for (int m = 0; m < Rows; m++)
    for (int n = 0; n < Columns; n++) sums[m][n] = Floats{};
  for (int64_t group = 0; group < groups; group++, weight += kTileBytes) {
    Integers parts[Rows][Columns], others[Rows][Columns];
    for (int m = 0; m < Rows; m++)
      for (int n = 0; n < Columns; n++) {
        parts[m][n] = Dot::kUnsigned ? all(-x.excess[m * groups + group]) : Integers{};
        others[m][n] = Integers{};
      }
#pragma GCC unroll 4
    for (int k = 0; k < kGroup / 4; k++)
      for (int m = 0; m < Rows; m++)
        for (int n = 0; n < Columns; n++) {
          Integers& sums = kSplit && k % 2 ? others[m][n] : parts[m][n];
          sums = Dot::add(sums, weight + n * w.tile_bytes() + k * kFour, x.steps + m * w.inputs + group * kGroup + 4 * k);
        }
    if (kSplit)
      for (int m = 0; m < Rows; m++)
        for (int n = 0; n < Columns; n++) parts[m][n] += others[m][n];
    for (int n = 0; n < Columns; n++) {
      const Floats scales = scales_of(weight + n * w.tile_bytes());
      for (int m = 0; m < Rows; m++) sums[m][n] += floats(parts[m][n]) * (scales * all(x.scales[m * groups + group]));
    }
  }
  for (int m = 0; m < Rows; m++)
    for (int n = 0; n < Columns; n++) {
      float* to = y + m * w.outputs + n * kTile;
      store(to, Add ? load(to) + sums[m][n] : sums[m][n]);
    }
}

#endif

template <int Columns, bool Add>
void multiply_strip(const Linear& w, int64_t tile, Inputs x, int64_t rows, float* y) {
  const uint8_t* weight = w.packed + tile * w.tile_bytes();
  y += tile * kTile;
  const auto some = [&](auto multiply, int64_t count) {
    multiply(w, weight, x, y);
    x.steps += count * w.inputs;
    x.scales += count * (w.inputs / kGroup);
    x.excess += count * (w.inputs / kGroup);
    y += count * w.outputs;
  };
  for (; rows >= kRows; rows -= kRows) some(multiply_tile<kRows, Columns, Add>, kRows);
  for (; rows >= 2; rows -= 2) some(multiply_tile<2, Columns, Add>, 2);
  if (rows) some(multiply_tile<1, Columns, Add>, 1);
}

// This thread's outputs of y = x Wᵀ, or of y += x Wᵀ. y: [rows, outputs].
template <bool Add>
void multiply(const Linear& w, const Inputs& x, int64_t rows, float* y, int number, int team) {
  const Part part = part_of(w.outputs / kTile, number, team, kColumns);
  int64_t tile = part.begin;
  // One or two rows wait for the weights: read as one stream, they arrive half as fast again.
  for (; rows > 2 && tile + kColumns <= part.end; tile += kColumns) multiply_strip<kColumns, Add>(w, tile, x, rows, y);
  for (; tile < part.end; tile++) multiply_strip<1, Add>(w, tile, x, rows, y);
}

}  // namespace retnet
