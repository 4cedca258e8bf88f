// One forward pass of a gated RetNet over rows of tokens: consecutive rows belong to a sequence, and each sequence has a memory.
//
// All rows share the matrix products; only the short convolution and retention look at who is who. The formulas are those of
// retention.py, which is the reference that this file is tested against.
#include <cstdlib>
#include <memory>
#include <new>

#include "linear.h"
#include "team.h"
#include "vector.h"

using namespace retnet;

extern "C" {

struct retnet_shape {
  int64_t layers, width, heads, head_dim, feed_forward, conv_width;
  float norm_eps, gate_limit;
};

// Vectors in fp32: retention_norm, feed_forward_norm [width]; convolution [conv_width, 3 · heads · head_dim], oldest first;
// gate_weight [heads, width]; gate_bias, rate [heads]; group_norm [heads · head_dim]. The rest is packed.
struct retnet_layer {
  const float *retention_norm, *convolution, *gate_weight, *gate_bias, *rate, *group_norm, *feed_forward_norm;
  const uint8_t *projection, *output, *expand, *contract;
};

// The next `length` rows. retention: [heads, head_dim, head_dim] of layer 0, key dimension first; window: [conv_width − 1, 3 · heads · head_dim]
// of layer 0, oldest first. The strides, in floats, lead to the next layer.
struct retnet_sequence {
  float *retention, *window;
  int64_t retention_stride, window_stride, length;
};
}

namespace {

constexpr int64_t kChunk = 64;  // tokens of a chunk of retention
constexpr int64_t kHead = 128;  // the largest head

// Memory that begins at a cache line, and is kept from pass to pass.
template <class T>
class Room {
 public:
  // Space for at least so many; what was in it is lost when it has to grow.
  void hold(int64_t count) {
    if (count <= count_) return;
    count_ = 0;
    memory_.reset(static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64)));
    if (!memory_) throw std::bad_alloc();
    count_ = count;
  }
  T* get() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> memory_;
  int64_t count_ = 0;
};

// What a thread needs for itself while it works on one head of one sequence.
struct alignas(64) Scratch {
  float q[kChunk * kHead], k[kChunk * kHead], v[kChunk * kHead], turned_k[kHead * kChunk], scores[kChunk * kChunk], out[kChunk * kHead];
  float cumulated[kChunk], decayed[kChunk], remaining[kChunk];
};

// Inputs of a product together with the memory that holds them.
class Held {
 public:
  void hold(int64_t rows, int64_t inputs) {
    inputs_ = inputs;
    steps_.hold(rows * inputs);
    scales_.hold(rows * inputs / kGroup);
    excess_.hold(rows * inputs / kGroup);
  }
  Inputs row(int64_t row) const {
    const int64_t group = row * (inputs_ / kGroup);
    return {steps_.get() + row * inputs_, scales_.get() + group, excess_.get() + group};
  }

 private:
  Room<int8_t> steps_;
  Room<float> scales_;
  Room<int32_t> excess_;
  int64_t inputs_ = 0;
};

// A team of threads and the memory that their passes need. Knows no model: it is given one with each pass.
class Worker {
 public:
  explicit Worker(int threads) : team_(threads) {
    for (int number = 0; number < team_.size(); number++) scratch_.push_back(std::make_unique<Scratch>());
  }

  void forward(const retnet_shape& shape, const retnet_layer* layers, float* x, int64_t rows, const float* rotation,
               const retnet_sequence* sequences, int64_t count) {
    shape_ = shape;
    inner_ = shape.heads * shape.head_dim;
    x_ = x;
    rows_ = rows;
    rotation_ = rotation;
    normed_.hold(rows * shape.width);
    projected_.hold(rows * 4 * inner_);
    log_decay_.hold(rows * shape.heads);
    expanded_.hold(rows * 2 * shape.feed_forward);
    wide_.hold(rows, shape.width);
    gated_.hold(rows, inner_);
    activated_.hold(rows, shape.feed_forward);
    items_.clear();
    for (int64_t row = 0, s = 0; s < count; row += sequences[s++].length)
      for (int64_t head = 0; head < shape.heads; head++) items_.push_back({&sequences[s], row, head});
    team_.run([this, layers](int number) {
      for (int64_t layer = 0; layer < shape_.layers; layer++) work(layer, layers[layer], number, team_.size());
    });
  }

  // y = x Wᵀ for rows of floats.
  void product_of(const Linear& w, const float* x, int64_t rows, float* y) {
    single_.hold(rows, w.inputs);
    team_.run([&](int number) {
      const Part part = part_of(rows, number, team_.size());
      for (int64_t row = part.begin; row < part.end; row++)
        for (int64_t group = 0; group < w.inputs / kGroup; group++)
          quantize_group(x + row * w.inputs + group * kGroup, single_.row(row), group);
      team_.meet();
      multiply<false>(w, single_.row(0), rows, y, number, team_.size());
    });
  }

 private:
  struct Item {
    const retnet_sequence* sequence;
    int64_t row, head;
  };

  void work(int64_t layer, const retnet_layer& weights, int number, int team) {
    norm(weights.retention_norm, number, team);
    decays(weights, number, team);
    team_.meet();
    multiply<false>({weights.projection, 4 * inner_, shape_.width}, wide_.row(0), rows_, projected_.get(), number, team);
    team_.meet();
    // In turns instead of shares, because sequences differ in length.
    for (size_t item = number; item < items_.size(); item += team) retain(layer, weights, items_[item], *scratch_[number]);
    team_.meet();
    multiply<true>({weights.output, shape_.width, inner_}, gated_.row(0), rows_, x_, number, team);
    team_.meet();
    norm(weights.feed_forward_norm, number, team);
    team_.meet();
    multiply<false>({weights.expand, 2 * shape_.feed_forward, shape_.width}, wide_.row(0), rows_, expanded_.get(), number, team);
    team_.meet();
    activate(number, team);
    team_.meet();
    multiply<true>({weights.contract, shape_.width, shape_.feed_forward}, activated_.row(0), rows_, x_, number, team);
    team_.meet();
  }

  void norm(const float* weight, int number, int team) {
    const Part part = part_of(rows_, number, team);
    for (int64_t row = part.begin; row < part.end; row++) {
      float* normed = normed_.get() + row * shape_.width;
      rms_norm(x_ + row * shape_.width, weight, shape_.width, shape_.norm_eps, normed);
      for (int64_t group = 0; group < shape_.width / kGroup; group++) quantize_group(normed + group * kGroup, wide_.row(row), group);
    }
  }

  // log γ = −exp(rate + clamp(gate)), of the rows that this thread has just normed.
  void decays(const retnet_layer& layer, int number, int team) {
    const Part part = part_of(rows_, number, team);
    for (int64_t row = part.begin; row < part.end; row++)
      for (int64_t head = 0; head < shape_.heads; head++) {
        const float gate = dot(normed_.get() + row * shape_.width, layer.gate_weight + head * shape_.width, shape_.width) + layer.gate_bias[head];
        log_decay_.get()[row * shape_.heads + head] = -std::exp(std::clamp(gate, -shape_.gate_limit, shape_.gate_limit) + layer.rate[head]);
      }
  }

  void activate(int number, int team) {
    const int64_t groups = shape_.feed_forward / kGroup;
    const Part part = part_of(rows_ * groups, number, team);
    for (int64_t item = part.begin; item < part.end; item++) {
      const int64_t row = item / groups, group = item % groups;
      const float* gate = expanded_.get() + row * 2 * shape_.feed_forward + group * kGroup;
      alignas(64) float product[kGroup];
      for (int i = 0; i < kGroup; i += kLanes) store(product + i, swish(load(gate + i)) * load(gate + shape_.feed_forward + i));
      quantize_group(product, activated_.row(row), group);
    }
  }

  // Everything between the two projections, for one head of one sequence.
  void retain(int64_t layer, const retnet_layer& weights, const Item& item, Scratch& s) {
    float* state = item.sequence->retention + layer * item.sequence->retention_stride + item.head * shape_.head_dim * shape_.head_dim;
    float* window = item.sequence->window + layer * item.sequence->window_stride;
    for (int64_t start = 0; start < item.sequence->length; start += kChunk) {
      const int64_t row = item.row + start, length = std::min(kChunk, item.sequence->length - start);
      convolve(weights, window, row, length, item.head, s);
      turn(row, length, s.q, 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)));
      turn(row, length, s.k, 1.0f);
      if (length == 1)
        recurrent(std::exp(log_decay_.get()[row * shape_.heads + item.head]), state, s);
      else
        chunk(row, length, item.head, state, s);
      for (int64_t n = 0; n < length; n++) gate(weights, row + n, item.head, s.out + n * shape_.head_dim);
    }
  }

  // q, k, v of this head: a causal depthwise convolution over the projections, which go on in the window.
  void convolve(const retnet_layer& weights, float* window, int64_t row, int64_t length, int64_t head, Scratch& s) {
    const int64_t dim = shape_.head_dim, channels = 3 * inner_, past = shape_.conv_width - 1;
    float* const parts[] = {s.q, s.k, s.v};
    for (int64_t part = 0; part < 3; part++) {
      const int64_t channel = part * inner_ + head * dim;
      // Projection n of this chunk, or one of the window's for n < 0.
      const auto seen = [&](int64_t n) {
        return n < 0 ? window + (past + n) * channels + channel : projected_.get() + (row + n) * 4 * inner_ + channel;
      };
      for (int64_t n = 0; n < length; n++)
        for (int64_t i = 0; i < dim; i += kLanes) {
          Floats total{};
          for (int64_t place = 0; place <= past; place++)
            total += load(seen(n - past + place) + i) * load(weights.convolution + place * channels + channel + i);
          store(parts[part] + n * dim + i, total);
        }
      for (int64_t place = 0; place < past; place++)
        std::memmove(window + place * channels + channel, seen(length - past + place), dim * sizeof(float));
    }
  }

  // Rotary positions on interleaved pairs: each pair, as a complex number, times its row's.
  void turn(int64_t row, int64_t length, float* x, float scale) {
    const int64_t dim = shape_.head_dim;
    for (int64_t n = 0; n < length; n++) {
      const float* angle = rotation_ + (row + n) * dim;
      float* pairs = x + n * dim;
      for (int64_t i = 0; i < dim; i += 2) {
        const float real = pairs[i] * scale, imaginary = pairs[i + 1] * scale;
        pairs[i] = real * angle[i] - imaginary * angle[i + 1];
        pairs[i + 1] = real * angle[i + 1] + imaginary * angle[i];
      }
    }
  }

  // S = γ S + kᵀ v, out = q S
  void recurrent(float decay, float* state, Scratch& s) {
    const int64_t dim = shape_.head_dim;
    int64_t c = 0;
    for (; c + 4 * kLanes <= dim; c += 4 * kLanes) recurrent_strip<4>(decay, state + c, c, s);
    for (; c < dim; c += kLanes) recurrent_strip<1>(decay, state + c, c, s);
  }

  // 16 · Columns of the state's columns, whose outputs and values stay in registers.
  template <int Columns>
  void recurrent_strip(float decay, float* state, int64_t column, Scratch& s) {
    const int64_t dim = shape_.head_dim;
    const Floats remaining = all(decay);
    Floats out[Columns], v[Columns];
    for (int c = 0; c < Columns; c++) {
      out[c] = Floats{};
      v[c] = load(s.v + column + c * kLanes);
    }
    for (int64_t i = 0; i < dim; i++, state += dim) {
      const Floats q = all(s.q[i]), k = all(s.k[i]);
      for (int c = 0; c < Columns; c++) {
        const Floats value = fused(load(state + c * kLanes), remaining, k * v[c]);
        store(state + c * kLanes, value);
        out[c] = fused(q, value, out[c]);
      }
    }
    for (int c = 0; c < Columns; c++) store(s.out + column + c * kLanes, out[c]);
  }

  // O = (Q Kᵀ ⊙ D) V + (c Q) S, then S = c_B S + Σ (c_B / c_j) K_jᵀ V_j, with c_j the decay since the chunk's start.
  void chunk(int64_t row, int64_t length, int64_t head, float* state, Scratch& s) {
    const int64_t dim = shape_.head_dim, padded = (length + kLanes - 1) / kLanes * kLanes;
    float total = 0;
    for (int64_t n = 0; n < padded; n++) {
      if (n < length) total += log_decay_.get()[(row + n) * shape_.heads + head];
      s.cumulated[n] = total;
    }
    for (int64_t n = 0; n < padded; n += kLanes) {
      store(s.decayed + n, exponential(load(s.cumulated + n)));
      store(s.remaining + n, exponential(all(total) - load(s.cumulated + n)));
    }
    for (int64_t i = 0; i < dim; i++)
      for (int64_t n = 0; n < padded; n++) s.turned_k[i * padded + n] = n < length ? s.k[n * dim + i] : 0;
    scores(length, padded, s);
    for (int64_t n = 0; n < length; n++)
      for (int64_t i = 0; i < dim; i += kLanes) store(s.q + n * dim + i, load(s.q + n * dim + i) * all(s.decayed[n]));
    product<false>(s.q, dim, state, dim, length, dim, dim, s.out, dim);
    product<true>(s.scores, padded, s.v, dim, length, length, dim, s.out, dim);
    for (int64_t i = 0; i < dim; i++)
      for (int64_t n = 0; n < padded; n += kLanes) store(s.turned_k + i * padded + n, load(s.turned_k + i * padded + n) * load(s.remaining + n));
    for (int64_t i = 0; i < dim * dim; i += kLanes) store(state + i, load(state + i) * all(s.decayed[length - 1]));
    product<true>(s.turned_k, padded, s.v, dim, dim, length, dim, state, dim);
  }

  // Q Kᵀ ⊙ D, [length, padded], zero above the diagonal.
  void scores(int64_t length, int64_t padded, Scratch& s) {
    const int64_t dim = shape_.head_dim;
    for (int64_t m = 0; m < padded; m += kLanes) {
      // Tokens m … m + 15 are seen by rows from m on.
      for (int64_t n = 0; n < m; n++) store(s.scores + n * padded + m, Floats{});
      product<false>(s.q + m * dim, dim, s.turned_k + m, padded, length - m, dim, kLanes, s.scores + m * padded + m, padded);
      for (int64_t n = m; n < length; n++) {
        float* place = s.scores + n * padded + m;
        // Where the token is later than the row, the difference is positive; its exponential stays finite, and is cut off.
        const Floats decay = exponential(all(s.cumulated[n]) - load(s.cumulated + m));
        const Integers past = (places() + all(static_cast<int32_t>(m))) <= all(static_cast<int32_t>(n));
        store(place, of_bits(bits(load(place) * decay) & past));
      }
    }
  }

  // Group norm and swish gate, ready for the output projection.
  void gate(const retnet_layer& weights, int64_t row, int64_t head, const float* out) {
    const int64_t dim = shape_.head_dim;
    const float* gate = projected_.get() + row * 4 * inner_ + 3 * inner_ + head * dim;
    alignas(64) float gated[kHead];
    rms_norm(out, weights.group_norm + head * dim, dim, shape_.norm_eps, gated);
    for (int64_t i = 0; i < dim; i += kLanes) store(gated + i, load(gated + i) * swish(load(gate + i)));
    for (int64_t group = 0; group < dim / kGroup; group++) quantize_group(gated + group * kGroup, gated_.row(row), head * dim / kGroup + group);
  }

  Team team_;
  std::vector<std::unique_ptr<Scratch>> scratch_;
  Room<float> normed_, projected_, log_decay_, expanded_;
  Held wide_, gated_, activated_, single_;

  // Of the present pass.
  retnet_shape shape_{};
  int64_t inner_ = 0, rows_ = 0;
  std::vector<Item> items_;
  float* x_ = nullptr;
  const float* rotation_ = nullptr;
};

// Nothing may throw into the caller, which is not C++: 0 is success, 1 no memory.
template <class Action>
int guarded(Action&& action) {
  try {
    action();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

}  // namespace

extern "C" {

int64_t retnet_packed_bytes(int64_t outputs, int64_t inputs) { return packed_bytes(outputs, inputs); }

void retnet_pack(const float* weight, int64_t outputs, int64_t inputs, uint8_t* packed) { pack(weight, outputs, inputs, packed); }

// A worker of so many threads, for one caller at a time; null without memory or threads.
void* retnet_open(int threads) {
  Worker* worker = nullptr;
  guarded([&] { worker = new Worker(threads); });
  return worker;
}

void retnet_close(void* worker) { delete static_cast<Worker*>(worker); }

// x: [rows, width], embeddings in, hidden states before the final norm out. rotation: [rows, head_dim / 2] complex numbers.
int retnet_forward(void* worker, const retnet_shape* shape, const retnet_layer* layers, float* x, int64_t rows, const float* rotation,
                   const retnet_sequence* sequences, int64_t count) {
  return guarded([&] { static_cast<Worker*>(worker)->forward(*shape, layers, x, rows, rotation, sequences, count); });
}

// y [rows, outputs] = x [rows, inputs] times the transpose of the packed matrix.
int retnet_multiply(void* worker, const uint8_t* packed, int64_t outputs, int64_t inputs, const float* x, int64_t rows, float* y) {
  return guarded([&] { static_cast<Worker*>(worker)->product_of({packed, outputs, inputs}, x, rows, y); });
}
}
