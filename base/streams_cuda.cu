/* base/streams_cuda.cu -- the streams of all ranks of this process, which may be threads. */
#include "base/streams_cuda.h"
#include <map>
#include <mutex>

namespace
{
std::mutex lock;
std::map<cudaStream_t, tv_cuda_stream> streams; /* entries do not move */
} // namespace

void tv_cuda_stream_add(cudaStream_t stream, int uses_tf32)
{
    const std::lock_guard<std::mutex> guard(lock);
    streams[stream] = {uses_tf32, nullptr, nullptr};
}

void tv_cuda_stream_remove(cudaStream_t stream)
{
    tv_cuda_stream gone = {};
    {
        const std::lock_guard<std::mutex> guard(lock);
        const auto found = streams.find(stream);
        if (found == streams.end())
            return;
        gone = found->second;
        streams.erase(found);
    }
    if (gone.companion != nullptr)
        gone.end_companion(gone.companion);
}

tv_cuda_stream *tv_cuda_stream_find(cudaStream_t stream)
{
    const std::lock_guard<std::mutex> guard(lock);
    const auto found = streams.find(stream);
    return found != streams.end() ? &found->second : nullptr;
}
