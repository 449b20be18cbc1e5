// The parser, on a table of its own: kinds of rows, aliases, refusals, args files, more than 64 rows.
#include "test_options.h"
#include <cstddef>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>

namespace
{
struct Values {
    const char *what, *text, *args;
    int whole, is_on;
    int64_t big;
    double real, positive;
    tv_options_given given;
};

const tv_option kRows[] = {
    {"WHAT", nullptr, TV_OPTION_WORD, offsetof(Values, what), 0, 0, nullptr, "a word"},
    {"Group", nullptr, TV_OPTION_HEADING, 0, 0, 0, nullptr, nullptr},
    {"whole", "first-name,second-name", TV_OPTION_INT, offsetof(Values, whole), -2, 9, "3",
     "a whole number"},
    {"big", "large", TV_OPTION_INT64, offsetof(Values, big), 0, TV_OPTION_BIG, nullptr,
     "a large number"},
    {"real", nullptr, TV_OPTION_REAL, offsetof(Values, real), 0, 1, "0.5", "a number"},
    {"positive", nullptr, TV_OPTION_REAL, offsetof(Values, positive), TV_OPTION_TINY, 2, "1",
     "a number above 0"},
    {"text", nullptr, TV_OPTION_TEXT, offsetof(Values, text), 0, 0, nullptr, "a text"},
    {"on", nullptr, TV_OPTION_SWITCH, offsetof(Values, is_on), 0, 0, nullptr, "a switch"},
    {"args", nullptr, TV_OPTION_ARGS, offsetof(Values, args), 0, 0, nullptr, "a file"},
};
const tv_option_table kTable = {kRows, (int)std::size(kRows), "check",
                                "Usage: trivet check [flags]\n"};

struct Parsed {
    Words words;
    Values values = {};
    tv_status_t status;

    explicit Parsed(std::vector<std::string> flags, const tv_option_table &table = kTable)
        : words("check", std::move(flags))
    {
        values.big = -7; // no default: left alone
        status = tv_options_parse(&table, words.argc(), words.argv.data(), &values, &values.given);
    }
    ~Parsed()
    {
        tv_options_free(&values.given);
    }
    bool has(const char *name) const
    {
        return tv_options_has(&kTable, &values.given, name);
    }
};

void expect_error(std::vector<std::string> flags, const char *sentence)
{
    Parsed parsed(std::move(flags));
    EXPECT_EQ(parsed.status, TV_INVALID);
    EXPECT_STREQ(tv_error_message(), sentence);
}

std::string file_with(const std::string &text)
{
    const std::string path = testing::TempDir() + "trivet_args";
    std::ofstream(path) << text;
    return path;
}
} // namespace

TEST(Options, DefaultsComeFromTheTableAndOtherFieldsAreLeftAlone)
{
    Parsed p({});
    ASSERT_EQ(p.status, TV_OK);
    EXPECT_EQ(p.values.whole, 3);
    EXPECT_EQ(p.values.big, -7);
    EXPECT_EQ(p.values.real, 0.5);
    EXPECT_EQ(p.values.what, nullptr);
    EXPECT_EQ(p.values.is_on, 0);
    for (const char *name : {"whole", "big", "real", "on", "text", "args", "no-such-flag"})
        EXPECT_FALSE(p.has(name)) << name;
}

TEST(Options, ValuesStandBehindAnEqualsSignOrInTheNextWord)
{
    Parsed p({"--whole=-2", "--big", "1000000000000", "--real", "1e-3", "--text=a=b", "--on"});
    ASSERT_EQ(p.status, TV_OK) << tv_error_message();
    EXPECT_EQ(p.values.whole, -2);
    EXPECT_EQ(p.values.big, 1000000000000);
    EXPECT_EQ(p.values.real, 1e-3);
    EXPECT_STREQ(p.values.text, "a=b");
    EXPECT_EQ(p.values.is_on, 1);
}

TEST(Options, EveryAliasIsTheSameFlag)
{
    for (const char *name : {"--whole", "--first-name", "--second-name"}) {
        Parsed p({name, "5"});
        ASSERT_EQ(p.status, TV_OK) << name;
        EXPECT_EQ(p.values.whole, 5) << name;
        EXPECT_TRUE(p.has("whole")) << name;
        EXPECT_TRUE(p.has("second-name")) << name;
        EXPECT_FALSE(p.has("big")) << name;
    }
    Parsed last({"--second-name", "1", "--whole", "2", "--first-name", "4"});
    EXPECT_EQ(last.values.whole, 4);
    expect_error({"--first-name,second-name", "1"},
                 "unknown flag --first-name,second-name; see trivet check --help");
    expect_error({"--first", "1"}, "unknown flag --first; see trivet check --help");
}

TEST(Options, OneWordMayStandBeforeTheFlags)
{
    Parsed p({"pipeline", "--whole", "4"});
    ASSERT_EQ(p.status, TV_OK) << tv_error_message();
    EXPECT_STREQ(p.values.what, "pipeline");
    EXPECT_EQ(p.values.whole, 4);
    expect_error({"pipeline", "two"}, "'two' is not a flag; see trivet check --help");
    expect_error({"--on", "late"}, "'late' is not a flag; see trivet check --help");
    expect_error({""}, "--WHAT: an empty value");
    expect_error({"--WHAT", "x"}, "unknown flag --WHAT; see trivet check --help");
    const tv_option_table flags_only = {kRows + 1, (int)std::size(kRows) - 1, "check", ""};
    Parsed refused({"pipeline"}, flags_only);
    EXPECT_EQ(refused.status, TV_INVALID);
}

TEST(Options, WhatIsNotInTheTableIsRefused)
{
    expect_error({"--who", "1"}, "unknown flag --who; see trivet check --help");
    expect_error({"--wholes=1"}, "unknown flag --wholes=1; see trivet check --help");
    expect_error({"-w", "1"}, "unknown flag -w; see trivet check --help");
    expect_error({"-whole", "1"}, "unknown flag -whole; see trivet check --help");
    expect_error({"--"}, "unknown flag --; see trivet check --help");
    expect_error({"-"}, "unknown flag -; see trivet check --help");
    expect_error({"--=1"}, "unknown flag --=1; see trivet check --help");
    expect_error({"--Group"}, "unknown flag --Group; see trivet check --help");
    expect_error({"--whole"}, "--whole needs a value");
    expect_error({"--on=1"}, "--on=1 takes no value");
}

TEST(Options, NumbersOutsideTheRangeAreRefusedWithFlagAndRange)
{
    expect_error({"--whole", "10"}, "--whole 10: must be between -2 and 9");
    expect_error({"--whole=-3"}, "--whole -3: must be between -2 and 9");
    expect_error({"--second-name", "10"}, "--whole 10: must be between -2 and 9");
    expect_error({"--big=-1"}, "--big -1: must be between 0 and 1e+15");
    expect_error({"--real", "1.5"}, "--real 1.5: must be between 0 and 1");
    expect_error({"--positive", "0"}, "--positive 0: must be above 0 and at most 2");
    expect_error({"--positive", "3"}, "--positive 3: must be above 0 and at most 2");
}

TEST(Options, WhatIsNoNumberIsRefused)
{
    expect_error({"--whole", "2x"}, "--whole 2x: not a whole number");
    expect_error({"--whole", "1.0"}, "--whole 1.0: not a whole number");
    expect_error({"--whole="}, "--whole : not a whole number");
    expect_error({"--big", "99999999999999999999"},
                 "--big 99999999999999999999: not a whole number");
    expect_error({"--real", "inf"}, "--real inf: not a number");
    expect_error({"--real", "nan"}, "--real nan: not a number");
    expect_error({"--real", "--on"}, "--real --on: not a number");
    expect_error({"--text="}, "--text: an empty value");
}

TEST(Options, TheLastValueWinsAndTheCommandLineBeatsTheFile)
{
    const std::string path = file_with("# from a file\n--whole 2\t--real 0.25 # both\n--on");
    Parsed p({"word", "--whole", "3", "--whole", "4", "--args", path});
    ASSERT_EQ(p.status, TV_OK) << tv_error_message();
    EXPECT_STREQ(p.values.what, "word");
    EXPECT_EQ(p.values.whole, 4);
    EXPECT_EQ(p.values.real, 0.25);
    EXPECT_EQ(p.values.is_on, 1);
    EXPECT_TRUE(p.has("real"));
    EXPECT_FALSE(p.has("text"));
    EXPECT_STREQ(p.values.args, path.c_str());
    std::remove(path.c_str());
}

TEST(Options, ArgsFilesAreChecked)
{
    const std::string path = file_with("--bogus 1\n");
    const std::string start = "--args " + path + ": ";
    expect_error({"--args", path},
                 (start + "unknown flag --bogus; see trivet check --help").c_str());
    file_with("word --whole 1\n");
    expect_error({"--args", path},
                 (start + "'word' is not a flag; see trivet check --help").c_str());
    file_with("--args " + path + "\n");
    expect_error({"--args", path}, (start + "--args inside the file").c_str());
    std::string many;
    for (int i = 0; i < 4097; i++)
        many += "--on\n";
    file_with(many);
    Parsed too_many({"--args", path});
    EXPECT_EQ(too_many.status, TV_BAD_FILE);
    file_with(many.substr(5));
    Parsed full({"--args", path});
    EXPECT_EQ(full.status, TV_OK) << tv_error_message();
    file_with(std::string("--on\0", 5));
    Parsed binary({"--args", path});
    EXPECT_EQ(binary.status, TV_BAD_FILE);
    std::remove(path.c_str());
    Parsed missing({"--args", path});
    EXPECT_EQ(missing.status, TV_BAD_FILE);
    Parsed folder({"--args", testing::TempDir()});
    EXPECT_EQ(folder.status, TV_BAD_FILE);
}

TEST(Options, HelpSaysEverything)
{
    EXPECT_EQ(help_of(kTable),
              "Usage: trivet check [flags]\n"
              "  WHAT                      a word\n"
              "\n"
              "Group\n"
              "  --whole N                 a whole number (default 3) [also --first-name,\n"
              "                            --second-name]\n"
              "  --big N                   a large number [also --large]\n"
              "  --real X                  a number (default 0.5)\n"
              "  --positive X              a number above 0 (default 1)\n"
              "  --text TEXT               a text\n"
              "  --on                      a switch\n"
              "  --args TEXT               a file\n");
}

TEST(Options, EachOf128RowsHasABitOfItsOwn)
{
    std::vector<std::string> names;
    std::vector<tv_option> rows;
    std::vector<int> values(TV_OPTION_MAX_ROWS);
    for (int i = 0; i < TV_OPTION_MAX_ROWS; i++)
        names.push_back("row-" + std::to_string(i));
    for (int i = 0; i < TV_OPTION_MAX_ROWS; i++)
        rows.push_back({names[(size_t)i].c_str(), nullptr, TV_OPTION_INT, (size_t)i * sizeof(int),
                        0, 1000, "0", "a row"});
    const tv_option_table table = {rows.data(), TV_OPTION_MAX_ROWS, "check", ""};
    for (int given : {0, 1, 31, 32, 63, 64, 65, 126, 127}) {
        Words words("check", {"--row-" + std::to_string(given), "7"});
        tv_options_given bits = {};
        ASSERT_EQ(tv_options_parse(&table, words.argc(), words.argv.data(), values.data(), &bits),
                  TV_OK);
        for (int i = 0; i < TV_OPTION_MAX_ROWS; i++) {
            EXPECT_EQ(tv_options_has(&table, &bits, names[(size_t)i].c_str()), i == given) << i;
            EXPECT_EQ(values[(size_t)i], i == given ? 7 : 0) << i;
        }
    }
}
