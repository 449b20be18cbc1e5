// What every table of flags must keep, and what schedule and bench add to it.
#include "test_options.h"
#include "train/bench_options.h"
#include "train/bench_step_options.h"
#include "train/convert_options.h"
#include "train/inspect_options.h"
#include "train/sample_options.h"
#include "train/schedule_options.h"
#include "train/tokenize_options.h"
#include "train/train_options.h"
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <gtest/gtest.h>
#include <set>
#include <sstream>

namespace
{
// Room for any struct of values.
union AnyValues {
    tv_train_options train;
    tv_schedule_options schedule;
    tv_bench_options bench;
    tv_bench_step_options bench_step;
    tv_convert_options convert;
    tv_inspect_options inspect;
    tv_sample_options sample;
};

tv_status_t parse(const tv_option_table &table, std::vector<std::string> flags, AnyValues &values,
                  tv_options_given &given)
{
    Words words(table.command, std::move(flags));
    return tv_options_parse(&table, words.argc(), words.argv.data(), &values, &given);
}

// The flag is refused, and the sentence starts with flag, value and `range`.
void expect_refused(const tv_option_table &table, const std::string &name, const std::string &value,
                    const char *range)
{
    AnyValues values = {};
    tv_options_given given = {};
    const std::string flag = "--" + name;
    EXPECT_EQ(parse(table, {flag, value}, values, given), TV_INVALID) << flag << " " << value;
    const std::string start = flag + " " + value + ": must be " + range;
    EXPECT_EQ(std::string(tv_error_message()).substr(0, start.size()), start);
}

std::vector<std::string> names_of(const tv_option &row)
{
    std::vector<std::string> names = {row.name};
    std::stringstream aliases(row.aliases == nullptr ? "" : row.aliases);
    for (std::string alias; std::getline(aliases, alias, ',');)
        names.push_back(alias);
    return names;
}

bool is_flag(const tv_option &row)
{
    return row.type != TV_OPTION_HEADING && row.type != TV_OPTION_WORD;
}

bool is_number(const tv_option &row)
{
    return row.type == TV_OPTION_INT || row.type == TV_OPTION_INT64 || row.type == TV_OPTION_REAL;
}

const tv_train_rows &filled(void (*fill)(tv_train_rows *))
{
    static tv_train_rows tables[2];
    tv_train_rows &table = tables[fill == tv_bench_kernels_table_fill];
    fill(&table);
    return table;
}

class EveryTable : public testing::TestWithParam<const tv_option_table *>
{
  protected:
    const tv_option_table &table = *GetParam();
    std::vector<tv_option> rows = {table.rows, table.rows + table.num_rows};
};
INSTANTIATE_TEST_SUITE_P(Options, EveryTable,
                         testing::Values(&tv_train_option_table, &tv_schedule_option_table,
                                         &tv_bench_option_table, &tv_convert_option_table,
                                         &tv_inspect_option_table, &tv_sample_option_table,
                                         &tv_tokenize_option_table,
                                         &filled(tv_bench_step_table_fill).table,
                                         &filled(tv_bench_kernels_table_fill).table),
                         [](const auto &table) {
                             std::string name = table.param->command;
                             std::replace(name.begin(), name.end(), ' ', '_');
                             return name;
                         });
} // namespace

TEST_P(EveryTable, NoTwoRowsShareANameOrAField)
{
    std::set<std::string> names;
    std::set<size_t> fields;
    int num_args = 0;
    for (const tv_option &row : rows) {
        for (const std::string &name : names_of(row)) {
            EXPECT_TRUE(names.insert(name).second) << name;
            EXPECT_FALSE(name.empty());
        }
        if (row.type != TV_OPTION_HEADING) {
            EXPECT_TRUE(fields.insert(row.offset).second) << row.name;
        }
        if (row.type == TV_OPTION_WORD) {
            EXPECT_EQ(row.name, table.rows[0].name);
        }
        num_args += row.type == TV_OPTION_ARGS;
    }
    EXPECT_LE(num_args, 1);
    EXPECT_EQ(names.count("help"), 1u);
}

TEST_P(EveryTable, DefaultsAreValuesThatTheFlagTakes)
{
    for (const tv_option &row : rows) {
        if (!is_flag(row) || row.value == nullptr)
            continue;
        for (const std::string &name : names_of(row)) {
            AnyValues by_default = {}, by_flag = {};
            tv_options_given none = {}, one = {};
            ASSERT_EQ(parse(table, {}, by_default, none), TV_OK) << tv_error_message();
            ASSERT_EQ(parse(table, {"--" + name, row.value}, by_flag, one), TV_OK)
                << tv_error_message();
            EXPECT_TRUE(tv_options_has(&table, &one, row.name)) << name;
            EXPECT_FALSE(tv_options_has(&table, &none, row.name)) << name;
            const size_t bytes = row.type == TV_OPTION_INT ? sizeof(int) : sizeof(int64_t);
            if (is_number(row)) {
                EXPECT_EQ(memcmp((const char *)&by_default + row.offset,
                                 (const char *)&by_flag + row.offset, bytes),
                          0)
                    << name;
            }
        }
    }
}

TEST_P(EveryTable, NumbersAreRefusedJustOutsideTheirRange)
{
    for (const tv_option &row : rows) {
        if (!is_number(row))
            continue;
        ASSERT_LT(row.low, row.high) << row.name;
        const bool is_open = row.low == TV_OPTION_TINY;
        const int64_t below = (int64_t)std::floor(row.low) - 1, above = (int64_t)row.high + 1;
        expect_refused(table, row.name, is_open ? "0" : std::to_string(below),
                       is_open ? "above 0 and at most " : "between ");
        expect_refused(table, row.name, std::to_string(above),
                       is_open ? "above 0 and at most " : "between ");
    }
}

TEST_P(EveryTable, HelpListsEveryRowWithItsDefaultIn80Columns)
{
    const std::string help = help_of(table);
    std::stringstream lines(help);
    for (std::string line; std::getline(lines, line);) {
        EXPECT_LE(line.size(), 80u) << line;
        EXPECT_FALSE(!line.empty() && line.back() == ' ') << line;
    }
    EXPECT_EQ(help.find(std::string("Usage: ")), 0u);
    EXPECT_NE(help.find(std::string("trivet ") + table.command), std::string::npos);
    for (const tv_option &row : rows) {
        const char *before = is_flag(row) ? "\n  --" : row.type == TV_OPTION_WORD ? "\n  " : "\n";
        const std::string start = std::string(before) + row.name;
        const size_t at = std::min(help.find(start + " "), help.find(start + "\n"));
        ASSERT_NE(at, std::string::npos) << row.name;
        const size_t next = help.find("\n  --", at + 1);
        const std::string entry = help.substr(at, next - at);
        if (row.value != nullptr) {
            EXPECT_NE(entry.find(std::string("(default ") + row.value + ")"), std::string::npos)
                << entry;
        }
        for (const std::string &name : names_of(row))
            EXPECT_NE(entry.find(name), std::string::npos) << entry;
    }
}

TEST_P(EveryTable, RefusalsNameTheCommand)
{
    AnyValues values = {};
    tv_options_given given = {};
    EXPECT_EQ(parse(table, {"--no-such-flag"}, values, given), TV_INVALID);
    EXPECT_EQ(tv_error_message(),
              std::string("unknown flag --no-such-flag; see trivet ") + table.command + " --help");
}

namespace
{
tv_status_t parse_schedule(std::vector<std::string> flags, tv_schedule_options &options)
{
    Words words("schedule", std::move(flags));
    return tv_schedule_options_parse(words.argc(), words.argv.data(), &options);
}

void expect_schedule_refused(std::vector<std::string> flags, const char *sentence)
{
    tv_schedule_options options = {};
    options.pp = -3;
    EXPECT_EQ(parse_schedule(std::move(flags), options), TV_INVALID);
    EXPECT_STREQ(tv_error_message(), sentence);
    EXPECT_EQ(options.pp, -3); // untouched
}

tv_status_t parse_bench(std::vector<std::string> flags, tv_bench_options &options)
{
    Words words("bench", std::move(flags));
    return tv_bench_options_parse(words.argc(), words.argv.data(), &options);
}
} // namespace

TEST(ScheduleOptions, Defaults)
{
    tv_schedule_options o = {};
    ASSERT_EQ(parse_schedule({}, o), TV_OK) << tv_error_message();
    EXPECT_EQ(o.pp, 0);
    EXPECT_EQ(o.vpp, 0);
    EXPECT_EQ(o.num_micro, 0);
    EXPECT_STREQ(o.schedule, "1f1b");
    EXPECT_STREQ(o.costs_text, "1,1,1");
    for (double cost : o.costs)
        EXPECT_EQ(cost, 1);
    EXPECT_EQ(o.send_cost, 0);
    EXPECT_EQ(o.slot_limit, 0);
    EXPECT_EQ(o.run_ms, -1);
    EXPECT_EQ(o.local_ranks, 0);
    EXPECT_EQ(o.timeout_seconds, 120);
    EXPECT_EQ(o.width, 0);
    EXPECT_STREQ(o.csv_form, "compute_only");
    EXPECT_STREQ(o.log_level, "info");
    for (const char *text : {o.svg, o.trace, o.csv})
        EXPECT_EQ(text, nullptr);
    EXPECT_FALSE(o.is_json || o.is_compare || o.overlaps_pairs || o.wants_help);
}

TEST(ScheduleOptions, EveryFlagReachesItsField)
{
    tv_schedule_options o = {};
    Words words("schedule", {"--pp",
                             "4",
                             "--vpp",
                             "2",
                             "--micro-batches",
                             "8",
                             "--schedule",
                             "x.csv",
                             "--costs",
                             "1,0.5,2e1",
                             "--send-cost",
                             "0.25",
                             "--slot-limit",
                             "5",
                             "--json",
                             "--svg",
                             "a",
                             "--trace",
                             "b",
                             "--csv",
                             "c",
                             "--run",
                             "0",
                             "--width",
                             "132",
                             "--compare",
                             "--csv-form",
                             "compute_comms",
                             "--local-ranks",
                             "4",
                             "--timeout",
                             "3",
                             "--log-level",
                             "warn",
                             "--overlap-pairs",
                             "--help"});
    ASSERT_EQ(tv_schedule_options_parse(words.argc(), words.argv.data(), &o), TV_OK)
        << tv_error_message();
    EXPECT_EQ(o.pp, 4);
    EXPECT_EQ(o.vpp, 2);
    EXPECT_EQ(o.num_micro, 8);
    EXPECT_STREQ(o.schedule, "x.csv");
    EXPECT_EQ(o.costs[0], 1);
    EXPECT_EQ(o.costs[1], 0.5);
    EXPECT_EQ(o.costs[2], 20);
    EXPECT_EQ(o.send_cost, 0.25);
    EXPECT_EQ(o.slot_limit, 5);
    EXPECT_STREQ(o.svg, "a");
    EXPECT_STREQ(o.trace, "b");
    EXPECT_STREQ(o.csv, "c");
    EXPECT_STREQ(o.csv_form, "compute_comms");
    EXPECT_EQ(o.run_ms, 0);
    EXPECT_EQ(o.width, 132);
    EXPECT_EQ(o.local_ranks, 4);
    EXPECT_EQ(o.timeout_seconds, 3);
    EXPECT_STREQ(o.log_level, "warn");
    EXPECT_TRUE(o.is_json && o.is_compare && o.overlaps_pairs && o.wants_help);
}

TEST(ScheduleOptions, CostsAreThreeNumbers)
{
    for (const char *text :
         {"1", "1,1", "1,1,1,1", "1,1,", ",1,1", "1;1;1", "1,x,1", "inf,1,1", "1,1,1 ", "nan,1,1"})
        expect_schedule_refused(
            {"--costs", text},
            (std::string("--costs ") + text + ": not three numbers F,B,W such as 1,1,1").c_str());
    expect_schedule_refused({"--costs", "1,-2,1"},
                            "--costs 1,-2,1: -2 must be between 0 and 1e+15");
    expect_schedule_refused({"--costs", "1,1,1e16"},
                            "--costs 1,1,1e16: 1e+16 must be between 0 and 1e+15");
    expect_schedule_refused({"--costs", "0,0,0"}, "--costs 0,0,0: one of them must be above 0");
    double costs[3] = {-1, -1, -1};
    EXPECT_EQ(tv_schedule_costs_parse("1,2", costs), TV_INVALID);
    EXPECT_EQ(costs[0], -1); // written on success only
    EXPECT_EQ(tv_schedule_costs_parse("1,0,0", costs), TV_OK);
    EXPECT_EQ(costs[0], 1);
    EXPECT_EQ(costs[1], 0);
    EXPECT_EQ(costs[2], 0);
}

TEST(ScheduleOptions, RefusesOtherForms)
{
    expect_schedule_refused({"--csv-form", "compute"},
                            "--csv-form compute is not one of compute_only, compute_comms");
    expect_schedule_refused({"--run", "-1"}, "--run -1: must be between 0 and 1000000");
    expect_schedule_refused({"1f1b"}, "'1f1b' is not a flag; see trivet schedule --help");
    expect_schedule_refused({"--args", "x"}, "unknown flag --args; see trivet schedule --help");
}

TEST(BenchOptions, OneWordSaysWhatIsMeasured)
{
    tv_bench_options o = {};
    ASSERT_EQ(parse_bench({"--help"}, o), TV_OK);
    EXPECT_EQ(o.what, nullptr);
    EXPECT_EQ(o.wants_help, 1);
    Words words("bench", {"pipeline", "--json", "--seconds", "0.5", "--local-ranks", "2"});
    ASSERT_EQ(tv_bench_options_parse(words.argc(), words.argv.data(), &o), TV_OK);
    EXPECT_STREQ(o.what, "pipeline");
    EXPECT_EQ(o.is_json, 1);
    EXPECT_EQ(o.seconds, 0.5);
    EXPECT_EQ(o.local_ranks, 2);
    EXPECT_STREQ(o.log_level, "info");
    EXPECT_EQ(o.wants_help, 0);
    EXPECT_EQ(parse_bench({}, o), TV_INVALID);
    EXPECT_STREQ(tv_error_message(),
                 "bench needs a word that says what is measured: step, kernels, "
                 "pipeline or links; see trivet bench --help");
    EXPECT_EQ(parse_bench({"pipe"}, o), TV_INVALID);
    EXPECT_STREQ(
        tv_error_message(),
        "bench pipe is not one of step, kernels, pipeline, links; see trivet bench --help");
    EXPECT_EQ(parse_bench({"--json", "pipeline"}, o), TV_INVALID);
    EXPECT_STREQ(o.what, "pipeline"); // still the one from before
    Words links("bench", {"links"});  // options borrow the words
    ASSERT_EQ(tv_bench_options_parse(links.argc(), links.argv.data(), &o), TV_OK);
    EXPECT_STREQ(o.what, "links");
    ASSERT_EQ(parse_bench({"pipeline"}, o), TV_OK);
    EXPECT_EQ(o.seconds, 1);
    EXPECT_EQ(o.local_ranks, 0);
}

// Rows of the train table keep their fields, defaults and the bit that says that they were given.
TEST(BenchStepOptions, TakeTheFlagsOfTrain)
{
    const tv_train_rows &table = filled(tv_bench_step_table_fill);
    tv_bench_step_options o = {};
    Words words("bench", {"step", "--pp", "2", "--preset", "gpt2", "--steps", "5", "--zero-stage",
                          "1", "--json"});
    ASSERT_EQ(tv_bench_step_options_parse(&table, words.argc(), words.argv.data(), &o), TV_OK);
    EXPECT_STREQ(o.what, "step");
    EXPECT_EQ(o.train.pp, 2);
    EXPECT_EQ(o.train.zero_stage, 1);
    EXPECT_EQ(o.num_steps, 5);
    EXPECT_EQ(o.num_warmup, 2);
    EXPECT_EQ(o.is_json, 1);
    EXPECT_EQ(o.train.is_json, 0);
    EXPECT_EQ(o.train.is_mock_data, 1);
    EXPECT_EQ(o.train.train_iters, 2 + 2 * 5);
    EXPECT_STREQ(o.train.shuffle, "on"); // of a row that the table does not have
    EXPECT_EQ(o.train.mask_token, -1);
    for (const char *name : {"pp", "preset", "zero-stage"})
        EXPECT_TRUE(tv_train_options_has(&o.train, name)) << name;
    for (int i = 0, given = 0; i < tv_train_option_table.num_rows; i++) {
        given += tv_train_options_has(&o.train, tv_train_option_table.rows[i].name);
        EXPECT_LE(given, 3);
    }
    tv_train_options_free(&o.train);
}

TEST(BenchStepOptions, LeaveOutDataAndFiles)
{
    std::set<std::string> step, kernels;
    for (int i = 0; i < filled(tv_bench_step_table_fill).table.num_rows; i++)
        step.insert(filled(tv_bench_step_table_fill).rows[i].name);
    for (int i = 0; i < filled(tv_bench_kernels_table_fill).table.num_rows; i++)
        kernels.insert(filled(tv_bench_kernels_table_fill).rows[i].name);
    for (const char *name :
         {"data", "valid-data", "Data", "metrics", "train-iters", "dry-run", "export-hf",
          "init-from", "trace", "mock-data", "save", "load", "eod-token", "exit-after"}) {
        EXPECT_EQ(step.count(name), 0u) << name;
        EXPECT_EQ(kernels.count(name), 0u) << name;
    }
    for (const char *name : {"pp", "schedule", "recompute", "threads", "zero-stage", "optimizer",
                             "precision", "grad-reduce-dtype", "zero-group-size"}) {
        EXPECT_EQ(step.count(name), 1u) << name;
    }
    EXPECT_EQ(kernels.count("pp"), 0u);
    EXPECT_EQ(kernels.count("tp"), 1u);
    EXPECT_EQ(kernels.count("precision"), 1u);
}

TEST(BenchStepOptions, SizesThatAreNotGivenFillTheDevice)
{
    const tv_train_rows &table = filled(tv_bench_step_table_fill);
    for (const bool is_given : {false, true})
        for (const bool is_gpu : {false, true}) {
            tv_bench_step_options o = {};
            Words words("bench", is_given ? std::vector<std::string>{"step", "--matrix-size", "512",
                                                                     "--memory-size", "64"}
                                          : std::vector<std::string>{"step"});
            ASSERT_EQ(tv_bench_step_options_parse(&table, words.argc(), words.argv.data(), &o),
                      TV_OK);
            tv_bench_step_options_complete(&o, is_gpu ? TV_DEVICE_CUDA : TV_DEVICE_CPU, 4);
            EXPECT_EQ(o.matrix_size, is_given ? 512 : is_gpu ? 8192 : 2048);
            EXPECT_EQ(o.triad_mib, is_given ? 64 : is_gpu ? 4096 : 128);
            tv_train_options_free(&o.train);
        }
}
