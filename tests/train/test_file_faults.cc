// Files that lose bytes while they are mapped: an error where somebody guards the read, the inner one of two.
#include "temporary.h"
#include "train/file_faults.h"
// A struct and a function of one name (tv_file_map) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "train/files.h"
#pragma GCC diagnostic pop
#include <csignal>
#include <cstring>
#include <unistd.h>

namespace
{
enum { BYTES = 3 * 4096 };

// A mapped file of three pages of which one is left.
class ShortenedFile : public testing::Test
{
  protected:
    void SetUp() override
    {
        ASSERT_EQ(tv_file_faults_catch(), TV_OK);
        ASSERT_EQ(tv_file_map(path_.c_str(), &map_), TV_OK);
        ASSERT_EQ(truncate(path_.c_str(), 4096), 0);
    }
    void TearDown() override
    {
        tv_file_unmap(&map_);
    }
    bool names_the_file() const
    {
        return std::strstr(tv_error_message(), (path_ + ": the file has become shorter").c_str());
    }

    Temporary folder_;
    const std::string path_ = folder_.write("file", std::string(BYTES, 7));
    struct tv_file_map map_ = {};
};

tv_status_t read_all(void *context)
{
    const struct tv_file_map *map = static_cast<struct tv_file_map *>(context);
    int sum = 0;
    for (int64_t i = 0; i < map->bytes; i++)
        sum += static_cast<const volatile unsigned char *>(map->data)[i];
    return sum == 7 * BYTES ? TV_OK : TV_ERR(TV_INTERNAL, "%d", sum);
}

TEST_F(ShortenedFile, IsABadFile)
{
    EXPECT_EQ(tv_file_guard(read_all, &map_), TV_BAD_FILE);
    EXPECT_TRUE(names_the_file());
    EXPECT_EQ(tv_file_guard(read_all, &map_), TV_BAD_FILE) << "a second time";
    map_.bytes = 4096;
    EXPECT_EQ(tv_file_guard(read_all, &map_), TV_INTERNAL) << "what is left can be read";
    map_.bytes = BYTES;
}

TEST_F(ShortenedFile, TheInnerGuardIsLeftAndTheOuterOneStays)
{
    struct Seen {
        struct tv_file_map *map;
        tv_status_t inner;
    } seen = {&map_, TV_OK};
    const auto body = [](void *context) {
        auto *s = static_cast<Seen *>(context);
        s->inner = tv_file_guard(read_all, s->map);
        return read_all(s->map);
    };
    EXPECT_EQ(tv_file_guard(body, &seen), TV_BAD_FILE);
    EXPECT_EQ(seen.inner, TV_BAD_FILE);
    EXPECT_TRUE(names_the_file());
}

TEST_F(ShortenedFile, TheSignalIsCaughtAgainWhereALibraryHasTakenIt)
{
    struct sigaction theirs = {}, now = {};
    theirs.sa_handler = [](int) { _exit(9); };
    ASSERT_EQ(sigaction(SIGBUS, &theirs, nullptr), 0);
    ASSERT_EQ(tv_file_faults_catch(), TV_OK);
    ASSERT_EQ(tv_file_faults_catch(), TV_OK);
    EXPECT_EQ(tv_file_guard(read_all, &map_), TV_BAD_FILE);
    ASSERT_EQ(sigaction(SIGBUS, nullptr, &now), 0);
    EXPECT_NE(now.sa_handler, theirs.sa_handler);
}
} // namespace
