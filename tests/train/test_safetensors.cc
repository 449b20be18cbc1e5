// The file format: what is read, what is refused before it is read, and byte positions of what is
// written.
#include "base/status.h"
#include "temporary.h"
#include "train/safetensors.h"
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <sys/resource.h>
#include <vector>

namespace
{
using Entries = std::vector<tv_safetensors_entry>;

tv_safetensors *open_or_fail(const std::string &path)
{
    tv_safetensors *file = nullptr;
    EXPECT_EQ(tv_safetensors_open(path.c_str(), &file), TV_OK) << tv_error_message();
    return file;
}

void expect_refused(const std::string &content, const std::string &part)
{
    Temporary dir;
    tv_safetensors *file = nullptr;
    const std::string path = dir.write("x.safetensors", content);
    EXPECT_EQ(tv_safetensors_open(path.c_str(), &file), TV_BAD_FILE) << part;
    EXPECT_EQ(file, nullptr);
    expect_message_has(path, tv_error_message());
    expect_message_has(part, tv_error_message());
}

std::string f32(const std::string &shape, int64_t begin, int64_t end)
{
    return R"({"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[)" + std::to_string(begin) +
           "," + std::to_string(end) + "]}";
}

std::vector<float> read_all(const tv_safetensors *file, const char *name)
{
    const tv_safetensor *t = tv_safetensors_find(file, name);
    if (t == nullptr) {
        ADD_FAILURE() << name << " is not there";
        return {};
    }
    const int64_t rows = t->num_dims > 0 ? t->shape[0] : 1;
    int64_t cols = 1;
    for (int i = 1; i < t->num_dims; i++)
        cols *= t->shape[i];
    std::vector<float> out((size_t)(rows * cols), -7.0f);
    const tv_safetensors_rect rect = {0, rows, 0, cols};
    EXPECT_EQ(tv_safetensors_read(file, t, &rect, out.data(), cols), TV_OK) << tv_error_message();
    return out;
}

tv_safetensors_entry entry(const char *name, std::vector<int64_t> shape)
{
    tv_safetensors_entry e = {};
    e.name = name;
    e.num_dims = (int)shape.size();
    for (size_t i = 0; i < shape.size(); i++)
        e.shape[i] = shape[i];
    return e;
}

std::vector<float> counted(size_t n)
{
    std::vector<float> values(n);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)i + 0.5f;
    return values;
}
} // namespace

TEST(Safetensors, RefusesWhatTheHeaderGetsWrong)
{
    const std::string eight(8, '\0');
    expect_refused("", "too few");
    expect_refused("1234567", "too few");
    expect_refused(bytes_of<uint64_t>(5) + "{}", "cut short");
    expect_refused(bytes_of<uint64_t>(UINT64_MAX) + "{}", "cut short");
    expect_refused(bytes_of<uint64_t>(100000001) + std::string(64, ' '), "at most 100000000");
    expect_refused(safetensors("", ""), "not JSON");
    expect_refused(safetensors("{\"a\":", ""), "not JSON");
    expect_refused(safetensors("[]", ""), "not a JSON object");
    const std::string a = f32("[2]", 0, 8);
    expect_refused(safetensors("{\"a\":" + a + ",\"a\":" + a + "}", eight), "not JSON"); // twice
    expect_refused(safetensors("{\"a\":3}", ""), "dtype");
    expect_refused(safetensors(R"({"a":{"dtype":"F31","shape":[],"data_offsets":[0,0]}})", ""),
                   "dtype");
    expect_refused(safetensors("{\"a\":" + f32("4", 0, 8) + "}", eight), "shape");
    expect_refused(safetensors("{\"a\":" + f32("[-2]", 0, 8) + "}", eight), "shape");
    expect_refused(safetensors("{\"a\":" + f32("[2.0]", 0, 8) + "}", eight), "shape");
    expect_refused(safetensors("{\"a\":" + f32("[1,1,1,1,1,1,1,1,2]", 0, 8) + "}", eight), "shape");
    expect_refused(safetensors(R"({"a":{"dtype":"F32","shape":[2]}})", eight), "data_offsets");
    expect_refused(safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", eight),
                   "data_offsets");
    expect_refused(
        safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,"8"]}})", eight),
        "data_offsets");
}

TEST(Safetensors, RefusesPlacesThatDoNotFit)
{
    const std::string eight(8, '\0'), sixteen(16, '\0');
    expect_refused(safetensors("{\"a\":" + f32("[2]", 0, 8) + "}", "1234567"), "leave the file");
    expect_refused(safetensors("{\"a\":" + f32("[2]", -8, 0) + "}", eight), "leave the file");
    expect_refused(safetensors("{\"a\":" + f32("[2]", 8, 0) + "}", eight), "leave the file");
    expect_refused(safetensors("{\"a\":" + f32("[3]", 0, 8) + "}", eight), "need 12 bytes");
    // 2^62 x 4 bytes is 0 in 64 bits.
    expect_refused(safetensors("{\"a\":" + f32("[4611686018427387904]", 0, 0) + "}", ""),
                   "too large");
    expect_refused(safetensors("{\"a\":" + f32("[4294967296,4294967296]", 0, 0) + "}", ""),
                   "too large");
    const std::string a = "{\"a\":" + f32("[2]", 0, 8);
    expect_refused(safetensors(a + ",\"b\":" + f32("[2]", 4, 12) + "}", sixteen.substr(4)),
                   "inside its predecessor");
    expect_refused(safetensors(a + ",\"b\":" + f32("[2]", 0, 8) + "}", eight),
                   "inside its predecessor");
    expect_refused(safetensors(a + ",\"b\":" + f32("[1]", 12, 16) + "}", sixteen), "hole");
    expect_refused(safetensors("{\"a\":" + f32("[2]", 8, 16) + "}", sixteen), "hole");
    expect_refused(safetensors(a + "}", sixteen), "end at byte 8 of 16");
}

// A file cut anywhere is refused; a header with any byte changed is refused or still describes what
// the file holds, so that reading all of it stays inside (the sanitizers watch).
TEST(Safetensors, DamageIsNeverFollowed)
{
    Temporary dir;
    const std::string good =
        safetensors("{\"a\":" + f32("[2,3]", 0, 24) + ",\"b\":" + f32("[1]", 24, 28) + "}",
                    std::string(28, 'x'));
    for (size_t length = 0; length < good.size(); length++)
        expect_refused(good.substr(0, length), "");
    for (size_t at = 0; at < good.size() - 28; at++)
        for (char byte : {'\0', '9', '"', '}', '\xFF'}) {
            std::string bad = good;
            bad[at] = byte;
            tv_safetensors *file = nullptr;
            if (tv_safetensors_open(dir.write("x", bad).c_str(), &file) != TV_OK)
                continue;
            for (int i = 0; i < tv_safetensors_count(file); i++)
                read_all(file, tv_safetensors_at(file, i)->name);
            tv_safetensors_close(file);
        }
}

TEST(Safetensors, RefusesWhatIsNotAFile)
{
    Temporary dir;
    tv_safetensors *file = nullptr;
    EXPECT_EQ(tv_safetensors_open(dir.path("absent").c_str(), &file), TV_BAD_FILE);
    EXPECT_EQ(tv_safetensors_open(dir.path("").c_str(), &file), TV_BAD_FILE);
    expect_message_has("not a plain file", tv_error_message());
    EXPECT_EQ(file, nullptr);
}

TEST(Safetensors, OrderOfTheHeaderNeedNotBeThatOfTheData)
{
    Temporary dir;
    const std::string header = "{\"b\":" + f32("[1]", 8, 12) + ",\"a\":" + f32("[2]", 0, 8) +
                               ",\"none\":" + f32("[0,5]", 8, 8) + "}   ";
    auto *file = open_or_fail(
        dir.write("x", safetensors(header, bytes_of(1.5f) + bytes_of(-2.5f) + bytes_of(3.25f))));
    ASSERT_EQ(tv_safetensors_count(file), 3);
    EXPECT_STREQ(tv_safetensors_at(file, 0)->name, "a");
    EXPECT_STREQ(tv_safetensors_at(file, 1)->name, "none");
    EXPECT_STREQ(tv_safetensors_at(file, 2)->name, "b");
    EXPECT_EQ(read_all(file, "a"), (std::vector<float>{1.5f, -2.5f}));
    EXPECT_EQ(read_all(file, "b"), (std::vector<float>{3.25f}));
    EXPECT_TRUE(read_all(file, "none").empty());
    EXPECT_EQ(tv_safetensors_find(file, "c"), nullptr);
    EXPECT_EQ(tv_safetensors_find(file, "__metadata__"), nullptr);
    tv_safetensors_close(file);
}

TEST(Safetensors, HalfPrecisionIsWidenedExactly)
{
    Temporary dir;
    const std::vector<uint16_t> halves = {0x0000, 0x8000, 0x3C00, 0xC000, 0x7BFF, 0x0001,
                                          0x83FF, 0x0400, 0x7C00, 0xFC00, 0x7E00, 0x3555};
    const float inf = std::numeric_limits<float>::infinity();
    const std::vector<float> want_f16 = {
        0.0f,     -0.0f, 1.0f, -2.0f, 65504.0f,       0x1p-24f, -1023 * 0x1p-24f,
        0x1p-14f, inf,   -inf, NAN,   0.333251953125f};
    const std::vector<uint16_t> brains = {0x3F80, 0xC040, 0x7F80, 0x0001, 0x8000, 0x3EAB};
    const std::vector<float> want_bf16 = {1.0f, -3.0f, inf, 0x1p-133f, -0.0f, 0.333984375f};
    std::string data;
    for (uint16_t h : halves)
        data += bytes_of(h);
    for (uint16_t b : brains)
        data += bytes_of(b);
    auto *file = open_or_fail(
        dir.write("x", safetensors(R"({"h":{"dtype":"F16","shape":[12],"data_offsets":[0,24]},)"
                                   R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[24,36]}} )",
                                   data)));
    const auto got_f16 = read_all(file, "h"), got_bf16 = read_all(file, "b");
    for (size_t i = 0; i < want_f16.size(); i++) {
        if (std::isnan(want_f16[i]))
            EXPECT_TRUE(std::isnan(got_f16[i]));
        else
            EXPECT_EQ(memcmp(&got_f16[i], &want_f16[i], 4), 0) << i << ": " << got_f16[i];
    }
    EXPECT_EQ(memcmp(got_bf16.data(), want_bf16.data(), 4 * want_bf16.size()), 0);
    tv_safetensors_close(file);
}

TEST(Safetensors, OtherTypesAreListedButNotRead)
{
    Temporary dir;
    auto *file = open_or_fail(
        dir.write("x", safetensors(R"({"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})",
                                   std::string(8, '\1'))));
    const tv_safetensor *t = tv_safetensors_find(file, "i");
    ASSERT_NE(t, nullptr);
    EXPECT_STREQ(t->dtype, "I64");
    float out = -7;
    const tv_safetensors_rect rect = {0, 1, 0, 1};
    EXPECT_EQ(tv_safetensors_read(file, t, &rect, &out, 1), TV_BAD_FILE);
    EXPECT_EQ(out, -7);
    tv_safetensors_close(file);
}

TEST(Safetensors, RectanglesOfATensor)
{
    Temporary dir;
    std::string data;
    for (float value : counted(60))
        data += bytes_of(value);
    // Two dims beyond the first count as columns: [4, 15].
    auto *file =
        open_or_fail(dir.write("x", safetensors("{\"a\":" + f32("[4,3,5]", 0, 240) + "}", data)));
    const tv_safetensor *t = tv_safetensors_find(file, "a");
    std::vector<float> out(10, -7.0f);
    const tv_safetensors_rect rect = {2, 2, 11, 3};
    ASSERT_EQ(tv_safetensors_read(file, t, &rect, out.data(), 5), TV_OK);
    EXPECT_EQ(out, (std::vector<float>{41.5f, 42.5f, 43.5f, -7, -7, 56.5f, 57.5f, 58.5f, -7, -7}));
    for (const tv_safetensors_rect &bad : {tv_safetensors_rect{0, 5, 0, 1},
                                           {3, 2, 0, 1},
                                           {-1, 1, 0, 1},
                                           {0, 1, 13, 3},
                                           {0, 1, 0, 16},
                                           {0, 1, -1, 1},
                                           {INT64_MAX, 1, 0, 1}})
        EXPECT_EQ(tv_safetensors_read(file, t, &bad, out.data(), 16), TV_INTERNAL);
    tv_safetensors_close(file);
}

TEST(SafetensorsWriter, BytePositionsAndContent)
{
    Temporary dir;
    const std::string odd = "quote\"back\\slash \xC3\xA9\xE2\x82\xAC";
    const Entries entries = {entry("a", {2, 3}), entry(odd.c_str(), {5}), entry("none", {0}),
                             entry("one", {})};
    tv_safetensors_writer *writer = nullptr;
    const std::string path = dir.path("x.safetensors");
    ASSERT_EQ(tv_safetensors_create(path.c_str(), (int)entries.size(), entries.data(), &writer),
              TV_OK);
    const auto values = counted(12);
    EXPECT_FALSE(dir.has("x.safetensors"));                               // not before it is whole
    for (auto [first, count] : {std::pair{0, 4}, {4, 5}, {9, 0}, {9, 3}}) // across tensors too
        ASSERT_EQ(tv_safetensors_write(writer, values.data() + first, count), TV_OK);
    EXPECT_EQ(tv_safetensors_write(writer, values.data(), 1), TV_INTERNAL);
    ASSERT_EQ(tv_safetensors_finish(&writer), TV_OK) << tv_error_message();
    EXPECT_EQ(writer, nullptr);
    EXPECT_FALSE(dir.has("x.safetensors.tmp"));

    const std::string content = dir.read("x.safetensors");
    uint64_t length;
    memcpy(&length, content.data(), 8);
    EXPECT_EQ((8 + length) % 8, 0u);
    EXPECT_EQ(content.size(), 8 + length + 48);
    EXPECT_EQ(content.substr(8, 33), R"({"__metadata__":{"format":"pt"},")");

    auto *file = open_or_fail(path);
    EXPECT_EQ(tv_safetensors_count(file), 4);
    EXPECT_EQ(read_all(file, "a"), (std::vector<float>{0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f}));
    EXPECT_EQ(read_all(file, odd.c_str()), (std::vector<float>{6.5f, 7.5f, 8.5f, 9.5f, 10.5f}));
    EXPECT_EQ(read_all(file, "one"), (std::vector<float>{11.5f}));
    EXPECT_EQ(tv_safetensors_find(file, "one")->num_dims, 0);
    tv_safetensors_close(file);
}

TEST(SafetensorsWriter, DataIsAlignedWhateverTheLengthOfTheHeader)
{
    Temporary dir;
    for (size_t extra = 0; extra < 8; extra++) {
        const std::string name(1 + extra, 'n');
        const Entries entries = {entry(name.c_str(), {1})};
        const float value = 3;
        tv_safetensors_writer *writer = nullptr;
        ASSERT_EQ(tv_safetensors_create(dir.path("x").c_str(), 1, entries.data(), &writer), TV_OK);
        ASSERT_EQ(tv_safetensors_write(writer, &value, 1), TV_OK);
        ASSERT_EQ(tv_safetensors_finish(&writer), TV_OK);
        EXPECT_EQ(dir.read("x").size() % 8, 4u) << name;
        auto *file = open_or_fail(dir.path("x"));
        EXPECT_EQ(read_all(file, name.c_str()), (std::vector<float>{3}));
        tv_safetensors_close(file);
    }
}

TEST(SafetensorsWriter, OtherTypes)
{
    Temporary dir;
    Entries entries = {entry("f", {3}), entry("b", {2, 2}), entry("i", {5})};
    entries[1].dtype = "BF16";
    entries[2].dtype = "U8";
    const uint16_t brains[] = {0x3F80, 0xC040, 0x0000, 0x3F00};
    const float values[] = {0.5f, 1.5f, 2.5f};
    tv_safetensors_writer *writer = nullptr;
    ASSERT_EQ(tv_safetensors_create(dir.path("x").c_str(), 3, entries.data(), &writer), TV_OK);
    ASSERT_EQ(tv_safetensors_write(writer, values, 3), TV_OK);
    ASSERT_EQ(tv_safetensors_write_bytes(writer, brains, 8), TV_OK);
    EXPECT_EQ(tv_safetensors_write_bytes(writer, "12345", 6), TV_INTERNAL);
    ASSERT_EQ(tv_safetensors_write_bytes(writer, "12345", 5), TV_OK);
    ASSERT_EQ(tv_safetensors_finish(&writer), TV_OK) << tv_error_message();
    auto *file = open_or_fail(dir.path("x"));
    EXPECT_EQ(read_all(file, "f"), (std::vector<float>{0.5f, 1.5f, 2.5f}));
    EXPECT_EQ(read_all(file, "b"), (std::vector<float>{1.0f, -3.0f, 0.0f, 0.5f}));
    EXPECT_EQ(tv_safetensors_find(file, "i")->bytes, 5);
    // What was forgotten is read again from the file.
    tv_safetensors_forget(file, tv_safetensors_find(file, "f"));
    EXPECT_EQ(read_all(file, "f"), (std::vector<float>{0.5f, 1.5f, 2.5f}));
    tv_safetensors_close(file);
}

TEST(SafetensorsWriter, NoTensorsIsAFileToo)
{
    Temporary dir;
    tv_safetensors_writer *writer = nullptr;
    ASSERT_EQ(tv_safetensors_create(dir.path("x").c_str(), 0, nullptr, &writer), TV_OK);
    ASSERT_EQ(tv_safetensors_finish(&writer), TV_OK);
    EXPECT_EQ(dir.read("x"), safetensors("{\"__metadata__\":{\"format\":\"pt\"}}", ""));
    auto *file = open_or_fail(dir.path("x"));
    EXPECT_EQ(tv_safetensors_count(file), 0);
    tv_safetensors_close(file);
}

TEST(SafetensorsWriter, AnUnfinishedFileReplacesNothing)
{
    Temporary dir;
    dir.write("x", "old");
    const Entries entries = {entry("a", {2})};
    const float values[2] = {1, 2};
    tv_safetensors_writer *writer = nullptr;
    ASSERT_EQ(tv_safetensors_create(dir.path("x").c_str(), 1, entries.data(), &writer), TV_OK);
    ASSERT_EQ(tv_safetensors_write(writer, values, 1), TV_OK);
    EXPECT_EQ(tv_safetensors_finish(&writer), TV_INTERNAL); // one number is missing
    EXPECT_EQ(writer, nullptr);
    ASSERT_EQ(tv_safetensors_create(dir.path("x").c_str(), 1, entries.data(), &writer), TV_OK);
    tv_safetensors_abandon(&writer);
    tv_safetensors_abandon(&writer); // NULL now
    EXPECT_EQ(dir.read("x"), "old");
    EXPECT_FALSE(dir.has("x.tmp"));
}

TEST(SafetensorsWriter, RefusesBadDeclarations)
{
    Temporary dir;
    tv_safetensors_writer *writer = nullptr;
    Entries unknown = {entry("a", {1})}, unaligned = {entry("a", {1}), entry("b", {1})};
    unknown[0].dtype = "F31";
    unaligned[0].dtype = "BF16";
    for (const Entries &entries :
         {unknown, unaligned, Entries{entry("a", {1}), entry("a", {2})}, Entries{entry("a", {-1})},
          Entries{entry("a", {INT64_MAX, 2})}, Entries{entry("__metadata__", {1})},
          Entries{entry("\xFF\xFE", {1})},
          Entries{entry("a", {INT64_MAX / 8}), entry("b", {INT64_MAX / 8}),
                  entry("c", {INT64_MAX / 8})}}) {
        EXPECT_EQ(tv_safetensors_create(dir.path("x").c_str(), (int)entries.size(), entries.data(),
                                        &writer),
                  TV_INVALID);
        EXPECT_EQ(writer, nullptr);
        EXPECT_FALSE(dir.has("x.tmp"));
    }
    EXPECT_EQ(tv_safetensors_create(dir.path("no/folder").c_str(), 0, nullptr, &writer), TV_IO);
}

// A limit on the size of files stands for a full disk: write fails in the middle.
TEST(SafetensorsWriter, AFullDiskIsToldAndLeavesTheOldFile)
{
    Temporary dir;
    dir.write("x", "old");
    const Entries entries = {entry("a", {100000})};
    const auto values = counted(100000);
    tv_safetensors_writer *writer = nullptr;
    rlimit before = {};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto handler = signal(SIGXFSZ, SIG_IGN);
    const rlimit small = {100000, before.rlim_max};
    ASSERT_EQ(tv_safetensors_create(dir.path("x").c_str(), 1, entries.data(), &writer), TV_OK);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    const tv_status_t status = tv_safetensors_write(writer, values.data(), 100000);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    EXPECT_EQ(status, TV_IO);
    expect_message_has(dir.path("x"), tv_error_message());
    tv_safetensors_abandon(&writer);
    EXPECT_EQ(dir.read("x"), "old");
    EXPECT_FALSE(dir.has("x.tmp"));
}
