// emulation.h -- how tests steer the emulated CUDA runtime, and what its doubles (cuBLASLt, NCCL) are made of.
//
// Kernels: every CUDA thread of a block is a fiber; blocks run one after another. Threads and blocks may be taken in
// several orders, and shared memory and fresh device memory are filled with a byte of the test's choice: a result that
// depends on either shows a missing barrier, or a read of what nothing wrote. A barrier that some threads do not reach
// and a shuffle from a lane that takes no part fail the launch with a sentence: the next synchronization returns
// cudaErrorLaunchFailure, and cudaGetErrorString gives the sentence.
//
// Memory: device memory lies in pages that only a running operation may touch; the host touching them gets SIGSEGV.
//
// Streams: queues whose operations run as late as they may: when the host synchronizes or asks for an event, or when
// another stream waits for them. An order that no stream and no event gives shows as a wrong result. A copy from
// pageable memory takes the bytes at the call and one to it is done when the call returns, as CUDA has it.
//
// Settings are the process's; from the environment: TRIVET_EMULATION_FILL, _ORDER, _SCHEDULE, _GPUS, _CAPABILITY,
// _MEMORY (bytes).
#ifndef TV_TESTS_EMULATION_EMULATION_H
#define TV_TESTS_EMULATION_EMULATION_H
#include <cuda_runtime.h>
#include <functional>
#include <string>
#include <vector>

namespace emulation
{
struct Settings {
    unsigned char fill = 0xff; // NaN of every floating type
    unsigned order =
        0; // of threads and blocks: 0 ascending, 1 descending, else a permutation made from it
    unsigned schedule = 0; // 0: as late as may be; else operations also run at moments made from it
    int gpus = 1;
    int capability = 90;             // of each GPU, ten times the major one and the minor one
    size_t memory = (size_t)1 << 30; // bytes of each GPU
};
Settings &settings();

// The first failure of a launch, "" without one; clear lets the next launches run.
std::string failure();
void clear_failure();

// An operation of a double: called until it returns true; false: it cannot be done yet (a peer has not come).
using Operation = std::function<bool()>;
void enqueue(cudaStream_t stream, const std::string &what, Operation operation);
// Runs what can be run of the stream; true when nothing is left.
bool advance(cudaStream_t stream);

// While one lives, device memory may be touched: operations and doubles use it.
class DeviceAccess
{
  public:
    DeviceAccess();
    ~DeviceAccess();
    DeviceAccess(const DeviceAccess &) = delete;
    DeviceAccess &operator=(const DeviceAccess &) = delete;
};
bool is_device_memory(const void *data);
bool is_pinned(const void *data);
size_t device_bytes(); // allocated now, on all GPUs
// Questions about a GPU's properties and attributes so far.
int num_questions();

// What was enqueued, in the order of the calls: "kernel", "copy", "set", "record", "wait", "host", or a double's word.
struct Entry {
    int stream; // the number of the stream, from 1 in the order of creation; 0: the default stream
    std::string what;
    int event; // of record and wait, from 1; else 0
};
void start_record();
std::vector<Entry> take_record();
int stream_number(cudaStream_t stream);
// This thread's ranges for profilers since the last call, the first thousand: "NAME" where one begins, "" where the
// last one ends.
std::vector<std::string> take_ranges();
// A planted fault: this thread's nth wait for an event from now is lost; 0: none.
void lose_wait(int nth);

// block.cc, for streams.cc: runs all blocks of a launch, on the calling thread.
void run_grid(const Launch &launch);
// hopper.cc, for block.cc: the same of products, loads and stores of Hopper's kind.
void end_hopper(unsigned num_threads);
// copies.cc, for block.cc: a block of so many threads has ended; fails the launch where a copy was not waited for.
void end_copies(unsigned num_threads);
} // namespace emulation
#endif
