"""Philox4x64-10 as a CUDA kernel: the same words as `numpy.random.Philox`, one block of four by each thread."""

SOURCE = r"""
__device__ void round_of_philox(unsigned long long c[4], unsigned long long k0, unsigned long long k1) {
    const unsigned long long m0 = 0xD2E7470EE14C6C93ULL, m1 = 0xCA5A826395121157ULL;
    unsigned long long high0 = __umul64hi(m0, c[0]), low0 = m0 * c[0];
    unsigned long long high1 = __umul64hi(m1, c[2]), low1 = m1 * c[2];
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
}

/* out[0 .. n-1]: the words of the blocks at (first0 .. first3), (first0 .. first3) + 1, ...
   first is the counter of the draw plus one, as NumPy counts before it makes a block. */
extern "C" __global__ void philox_words(
        unsigned long long* out, long long n, unsigned long long key0, unsigned long long key1,
        unsigned long long first0, unsigned long long first1, unsigned long long first2, unsigned long long first3) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x; 4 * block < n; block += stride) {
        unsigned long long c[4] = {first0 + (unsigned long long)block, first1, first2, first3};
        /* The sum is over 256 bits: a word that became smaller carries one into the next. */
        if (c[0] < first0 && ++c[1] == 0 && ++c[2] == 0) ++c[3];
        unsigned long long k0 = key0, k1 = key1;
        for (int round = 0; round < 10; ++round) {
            round_of_philox(c, k0, k1);
            k0 += 0x9E3779B97F4A7C15ULL;
            k1 += 0xBB67AE8584CAA73BULL;
        }
        for (int i = 0; i < 4 && 4 * block + i < n; ++i) out[4 * block + i] = c[i];
    }
}
"""

NAME = "philox_words"
THREADS = 256
MOST_BLOCKS = 4096
"""A grid of this many blocks fills any GPU; what is left over is worked off in the kernel's loop."""
