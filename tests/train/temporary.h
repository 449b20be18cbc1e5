// A folder of its own for each test, and whole files as strings.
#ifndef TV_TESTS_TRAIN_TEMPORARY_H
#define TV_TESTS_TRAIN_TEMPORARY_H
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <string>

class Temporary
{
  public:
    Temporary()
    {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "trivet-test-XXXXXX").string();
        folder_ = mkdtemp(pattern.data());
    }
    ~Temporary()
    {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    Temporary(const Temporary &) = delete;
    Temporary &operator=(const Temporary &) = delete;

    std::string path(const std::string &name) const
    {
        return folder_ + "/" + name;
    }
    std::string write(const std::string &name, const std::string &content) const
    {
        std::ofstream(path(name), std::ios::binary) << content;
        return path(name);
    }
    std::string read(const std::string &name) const
    {
        std::ifstream file(path(name), std::ios::binary);
        EXPECT_TRUE(file.good()) << name;
        return {std::istreambuf_iterator<char>(file), {}};
    }
    bool has(const std::string &name) const
    {
        return std::filesystem::exists(path(name));
    }

  private:
    std::string folder_;
};

// The bytes of a number as it lies in a file.
template <typename T> std::string bytes_of(T value)
{
    return {reinterpret_cast<const char *>(&value), sizeof(value)};
}

// A safetensors file from its parts.
inline std::string safetensors(const std::string &header, const std::string &data)
{
    return bytes_of<uint64_t>(header.size()) + header + data;
}

inline void expect_message_has(const std::string &part, const std::string &message)
{
    EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in: " << message;
}
#endif
