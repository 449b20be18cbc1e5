// The index of shards: any bytes name files of the index' own folder that hold just what it lists, or
// are refused with a sentence. The folder has two shards, and there is a third beside the folder.
#include "base/log.h"
#include "fuzz_file.h"
#include "train/hf_files.h"
#include <cstring>
#include <fstream>

static void write_shard(const std::string &path, const std::string &header, size_t bytes)
{
    std::ofstream file(path, std::ios::binary);
    const uint64_t length = header.size();
    file.write(reinterpret_cast<const char *>(&length), 8);
    file << header << std::string(bytes, '\0');
    require(file.good());
}

// The two shards; the third lies beside it.
static std::string make_folder(const FuzzFolder &outer)
{
    std::string inner = outer.name() + "/in";
    require(std::filesystem::create_directory(inner));
    const std::string c = R"({"c":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})";
    write_shard(inner + "/one.safetensors",
                R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                12);
    write_shard(inner + "/two.safetensors", c, 3);
    write_shard(outer.name() + "/out.safetensors", c, 3);
    return inner;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tv_log_set_level(TV_LOG_OFF);
    static const FuzzFolder outer;
    static const std::string folder = make_folder(outer);
    const std::string path = folder + "/model.safetensors.index.json";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char *>(data), (std::streamsize)size);
    tv_hf_files *files = nullptr;
    if (tv_hf_files_open(folder.c_str(), &files) != TV_OK) {
        require(std::strlen(tv_error_message()) > 0 && files == nullptr);
        return 0;
    }
    int64_t num = 0;
    for (int i = 0; i < tv_hf_files_count(files); i++) {
        const std::string name = tv_safetensors_path(tv_hf_files_at(files, i));
        require(name == folder + "/one.safetensors" || name == folder + "/two.safetensors");
        num += tv_safetensors_count(tv_hf_files_at(files, i));
    }
    require(num == tv_hf_files_num_tensors(files));
    tv_hf_files_close(files);
    return 0;
}
