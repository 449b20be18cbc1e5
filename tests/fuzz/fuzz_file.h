/* tests/fuzz/fuzz_file.h -- a fuzzer's bytes as a file, for readers that take a path: in memory, under
 * a name that the kernel gives. */
#ifndef TESTS_FUZZ_FUZZ_FILE_H
#define TESTS_FUZZ_FUZZ_FILE_H
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

inline void require(bool holds)
{
    if (!holds)
        std::abort();
}

class FuzzFile
{
  public:
    FuzzFile(const uint8_t *data, size_t size) : fd_(memfd_create("fuzz", MFD_CLOEXEC))
    {
        require(fd_ >= 0 && write(fd_, data, size) == (ssize_t)size);
        path_ = "/proc/self/fd/" + std::to_string(fd_);
    }
    ~FuzzFile()
    {
        close(fd_);
    }
    FuzzFile(const FuzzFile &) = delete;
    FuzzFile &operator=(const FuzzFile &) = delete;
    const char *path() const
    {
        return path_.c_str();
    }

  private:
    int fd_;
    std::string path_;
};

/* A folder that goes away with the process. */
class FuzzFolder
{
  public:
    FuzzFolder()
    {
        require(mkdtemp(name_.data()) != nullptr);
    }
    ~FuzzFolder()
    {
        std::error_code ignored;
        std::filesystem::remove_all(name_, ignored);
    }
    FuzzFolder(const FuzzFolder &) = delete;
    FuzzFolder &operator=(const FuzzFolder &) = delete;
    const std::string &name() const
    {
        return name_;
    }

  private:
    std::string name_ = (std::filesystem::temp_directory_path() / "trivet-fuzz-XXXXXX").string();
};
#endif
