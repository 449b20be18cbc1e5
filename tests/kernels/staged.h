// tests/kernels/staged.h -- the cases of the harness on a device whose memory the host cannot touch.
//
// Cases call a table with pointers to the host's memory. The staged table takes such a call to the device: whatever of
// the Call's memory an argument points into lies there too while the inner table runs, and comes back.
#ifndef TV_TESTS_KERNELS_STAGED_H
#define TV_TESTS_KERNELS_STAGED_H
#include "kernels/harness.h"

class Staged
{
  public:
    // Opens the CUDA device.
    Staged();
    ~Staged();
    Staged(const Staged &) = delete;
    Staged &operator=(const Staged &) = delete;

    // is_aligned: first elements at multiples of 16 bytes; else one element behind.
    Call run(const Case &c, tv_dtype_t dtype, bool is_aligned);
    const tv_kernels *inner(tv_dtype_t dtype) const
    {
        return tables[dtype == TV_BF16];
    }
    tv_device *device = nullptr;
    tv_stream *stream = nullptr;

  private:
    const tv_kernels *tables[2] = {};
};
#endif
