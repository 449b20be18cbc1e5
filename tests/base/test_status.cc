// Status names, exit codes, the last error of a thread, log levels.
#include "base/log.h"
#include "base/status.h"
#include <gtest/gtest.h>
#include <string>
#include <thread>

TEST(Status, ExitCodesAreTheDocumentedOnes)
{
    EXPECT_EQ(tv_status_exit_code(TV_OK), 0);
    EXPECT_EQ(tv_status_exit_code(TV_INVALID), 2);
    EXPECT_EQ(tv_status_exit_code(TV_UNSUPPORTED), 2);
    EXPECT_EQ(tv_status_exit_code(TV_BAD_FILE), 3);
    EXPECT_EQ(tv_status_exit_code(TV_NUMERIC), 4);
    EXPECT_EQ(tv_status_exit_code(TV_PEER), 5);
    EXPECT_EQ(tv_status_exit_code(TV_STOPPED), 75);
    EXPECT_EQ(tv_status_exit_code((tv_status_t)99), 1);
    EXPECT_STREQ(tv_status_name(TV_BAD_FILE), "TV_BAD_FILE");
    EXPECT_STREQ(tv_status_meaning(TV_BAD_FILE), "bad input file");
}

TEST(Error, KeepsSentenceAndPlaceAndMayQuoteItself)
{
    EXPECT_EQ(TV_ERR(TV_INVALID, "heads=%d", 3), TV_INVALID);
    EXPECT_STREQ(tv_error_message(), "heads=3");
    EXPECT_NE(std::string(tv_error_where()).find("test_status.cc:"), std::string::npos);
    EXPECT_EQ(TV_ERR(TV_PEER, "rank 1: %s", tv_error_message()), TV_PEER);
    EXPECT_STREQ(tv_error_message(), "rank 1: heads=3");
}

TEST(Error, BelongsToOneThread)
{
    (void)TV_ERR(TV_INVALID, "mine");
    std::thread other([] {
        EXPECT_STREQ(tv_error_message(), "");
        (void)TV_ERR(TV_INVALID, "theirs");
    });
    other.join();
    EXPECT_STREQ(tv_error_message(), "mine");
}

TEST(Error, LongSentencesAreCut)
{
    (void)TV_ERR(TV_INVALID, "%s", std::string(5000, 'x').c_str());
    EXPECT_EQ(std::string(tv_error_message()), std::string(1023, 'x'));
}

TEST(Log, LevelsAreParsedAndUnknownOnesRefused)
{
    tv_log_level_t level = TV_LOG_OFF;
    EXPECT_EQ(tv_log_level_parse("debug", &level), TV_OK);
    EXPECT_EQ(level, TV_LOG_DEBUG);
    EXPECT_EQ(tv_log_level_parse("loud", &level), TV_INVALID);
    EXPECT_EQ(level, TV_LOG_DEBUG);
}
