// Schedules in PyTorch's CSV: both forms there and back, what PyTorch writes, and what is refused.
#include "base/log.h"
#include "pipeline/schedule_csv.h"
#include "pipeline/table.h"

namespace
{
struct Parsed {
    struct tv_schedule schedule = {};
    tv_status_t status;

    explicit Parsed(const std::string &text, const char *name = "some/file.csv")
    {
        status = tv_schedule_parse_csv(text.data(), text.size(), name, &schedule);
    }
    ~Parsed()
    {
        tv_schedule_destroy(&schedule);
    }
    Parsed(const Parsed &) = delete;
    Parsed &operator=(const Parsed &) = delete;

    std::string compute(int stage) const
    {
        return text_of(Table(schedule).stages[(size_t)stage], true);
    }
    std::string all(int stage) const
    {
        return text_of(Table(schedule).stages[(size_t)stage]);
    }
};

std::string written(const struct tv_schedule *schedule, tv_csv_form_t form)
{
    char *text = nullptr;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    EXPECT_EQ(TV_OK, tv_schedule_write_csv(schedule, form, out));
    std::fclose(out);
    const std::string result(text, bytes);
    free(text);
    return result;
}

void expect_refused(const std::string &text, const std::string &message)
{
    struct tv_schedule schedule = {};
    schedule.num_micro = -7;
    EXPECT_EQ(TV_BAD_FILE, tv_schedule_parse_csv(text.data(), text.size(), "f.csv", &schedule));
    EXPECT_EQ("f.csv: " + message, tv_error_message());
    EXPECT_EQ(-7, schedule.num_micro);
}

void expect_same_compute(const Table &a, const Table &b)
{
    ASSERT_EQ(a.stages.size(), b.stages.size());
    EXPECT_EQ(a.position_of, b.position_of);
    EXPECT_EQ(a.num_micro, b.num_micro);
    for (size_t s = 0; s < a.stages.size(); s++)
        EXPECT_EQ(text_of(a.stages[s], true), text_of(b.stages[s], true));
}

void expect_round_trip(Table table)
{
    const std::string only = written(table.schedule(), TV_CSV_COMPUTE_ONLY);
    const std::string comms = written(table.schedule(), TV_CSV_COMPUTE_COMMS);
    Parsed from_only(only), from_comms(comms);
    ASSERT_EQ(TV_OK, from_only.status) << tv_error_message();
    ASSERT_EQ(TV_OK, from_comms.status) << tv_error_message();
    expect_same_compute(table, Table(from_only.schedule));
    expect_same_compute(table, Table(from_comms.schedule));
    EXPECT_EQ(only, written(&from_comms.schedule, TV_CSV_COMPUTE_ONLY));
    EXPECT_EQ(comms, written(&from_only.schedule, TV_CSV_COMPUTE_COMMS));
    EXPECT_EQ(comms, written(&from_comms.schedule, TV_CSV_COMPUTE_COMMS));
}
} // namespace

TEST(ScheduleCsv, EveryScheduleThereAndBack)
{
    for (int index = 0; tv_schedule_name(index) != nullptr; index++) {
        const char *name = tv_schedule_name(index);
        const int v = tv_schedule_default_chunks(name);
        for (int P = 1; P <= 5; P++) {
            for (int m = 1; m <= 2 * P + 3; m++) {
                SCOPED_TRACE(std::string(name) + ", P=" + std::to_string(P) +
                             ", m=" + std::to_string(m));
                expect_round_trip(Table::built(name, P, m, v));
                if (std::string(name) == "interleaved")
                    expect_round_trip(Table::built(name, P, m, 3));
            }
        }
    }
}

TEST(ScheduleCsv, WritesWhatPyTorchWrites)
{
    Table table = Table::built("1f1b", 2, 2);
    EXPECT_EQ("0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1\r\n",
              written(table.schedule(), TV_CSV_COMPUTE_ONLY));
    EXPECT_EQ("0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\r\n"
              "1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1\r\n",
              written(table.schedule(), TV_CSV_COMPUTE_COMMS));
}

TEST(ScheduleCsv, EmptyCellsBlanksAndLineEnds)
{
    for (const char *text :
         {"0F0,,, 0F1 ,0B0,\t0B1\r\n,1F0,1B0,1F1,1B1,,\r\n", "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1",
          "0F0,0F1,0B0,0B1\r\n"
          "1F0,1B0,1F1,1B1\r\n\r\n\n"}) {
        Parsed p(text);
        ASSERT_EQ(TV_OK, p.status) << tv_error_message();
        EXPECT_STREQ("file.csv", p.schedule.name);
        EXPECT_EQ(2, p.schedule.num_stages);
        EXPECT_EQ(1, p.schedule.num_chunks);
        EXPECT_EQ(2, p.schedule.num_micro);
        EXPECT_EQ(0, p.schedule.is_ordered);
        EXPECT_EQ("F0 SEND_F0>1 F1 SEND_F1>1 RECV_B0>1 B0 RECV_B1>1 B1", p.all(0));
        EXPECT_EQ("RECV_F0>0 F0 B0 SEND_B0>0 RECV_F1>0 F1 B1 SEND_B1>0", p.all(1));
    }
}

TEST(ScheduleCsv, ThePlacementIsWhereThePositionsAre)
{
    Parsed v("0F0,3F0,3I0,3W0,0I0,0W0\n1F0,2F0,2B0,1B0\n");
    ASSERT_EQ(TV_OK, v.status) << tv_error_message();
    EXPECT_EQ("F0 SEND_F0>1 RECV_F0.1>1 F0.1 I0.1 SEND_B0.1>1 W0.1 RECV_B0>1 I0 W0", v.all(0));
    EXPECT_EQ("RECV_F0>0 F0 F0.1 SEND_F0.1>0 RECV_B0.1>0 B0.1 B0 SEND_B0>0", v.all(1));
    EXPECT_EQ(3, tv_schedule_position(&v.schedule, 0, 1));
    EXPECT_EQ(1, tv_schedule_stage_of(&v.schedule, 2));
    Parsed neighbours("0F0,1F0,1B0,0B0\n2F0,3F0,3B0,2B0\n"); // blocks, no placement of trivet's
    ASSERT_EQ(TV_OK, neighbours.status) << tv_error_message();
    EXPECT_EQ("F0 F0.1 SEND_F0.1>1 RECV_B0.1>1 B0.1 B0", neighbours.all(0));
}

TEST(ScheduleCsv, ListedMessagesAreKept)
{
    // Both receives of stage 1 stand at its start: not what lowering would do.
    Parsed p("0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
             "1RECV_F0,1RECV_F1,1F0,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n");
    ASSERT_EQ(TV_OK, p.status) << tv_error_message();
    EXPECT_EQ("RECV_F0>0 RECV_F1>0 F0 B0 SEND_B0>0 F1 B1 SEND_B1>0", p.all(1));
    expect_refused(
        "0F0,0SEND_F0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
        "(stage 0 is row 1) schedule f.csv: stage 0, action 2: B of micro-batch 0, chunk "
        "0: before its gradient was received");
    expect_refused("0F0,0F1,0SEND_F1,0SEND_F0,0RECV_B0,0B0,0RECV_B1,0B1\n"
                   "1RECV_F0,1RECV_F1,1F0,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n",
                   "(stage 0 is row 1) schedule f.csv: stage 1, action 0: RECV_F of micro-batch 0, "
                   "chunk 0: does not match the order in which its peer sends");
}

TEST(ScheduleCsv, Pairs)
{
    const char *text = "0F0,0F1,(0F2;0B0)OVERLAP_F_B,0B1,0B2\r\n"
                       "1F0,(1F1;1B0)OVERLAP_F_B,(1F2;1B1)OVERLAP_F_B,1B2\r\n";
    Parsed p(text);
    ASSERT_EQ(TV_OK, p.status) << tv_error_message();
    EXPECT_EQ("F0 F1 F2+ B0 B1 B2", p.compute(0));
    EXPECT_EQ(text, written(&p.schedule, TV_CSV_COMPUTE_ONLY));
    EXPECT_EQ("0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,(0F2;0B0)OVERLAP_F_B,0SEND_F2,0RECV_B1,0B1,"
              "0RECV_B2,0B2\r\n"
              "1RECV_F0,1F0,1RECV_F1,(1F1;1B0)OVERLAP_F_B,1SEND_B0,1RECV_F2,"
              "(1F2;1B1)OVERLAP_F_B,1SEND_B1,1B2,1SEND_B2\r\n",
              written(&p.schedule, TV_CSV_COMPUTE_COMMS));
    expect_round_trip(Table(p.schedule));
    for (const char *cell : {"(0F0;0B0)OVERLAP", "(0F0,0B0)OVERLAP_F_B", "(0F0;0B0)OVERLAP_F_BX",
                             "(0F0;0B0", "(", "(0F0)OVERLAP_F_B;"})
        EXPECT_EQ(TV_BAD_FILE, Parsed(cell).status) << cell;
    expect_refused("0F0,(0B0;0F1)OVERLAP_F_B",
                   "row 1, cell 2: '(0B0;0F1)OVERLAP_F_B' pairs something else than a forward and "
                   "a backward");
    expect_refused(
        "(0F0;0B0;0F1)OVERLAP_F_B",
        "row 1, cell 1: '(0F0;0B0;0F1)OVERLAP_F_B' has something behind its micro-batch");
}

TEST(ScheduleCsv, SpellingOfTorch25)
{
    Parsed weights("0F0,0B0,0W0\n1F0,1B0,1W0\n");
    ASSERT_EQ(TV_OK, weights.status) << tv_error_message();
    EXPECT_EQ("F0 I0 W0", weights.compute(0));
    Parsed full("0F0,0F1,0BW0,0B1,0W1\n1F0,1BW0,1F1,1BW1\n");
    ASSERT_EQ(TV_OK, full.status) << tv_error_message();
    EXPECT_EQ("F0 F1 B0 I1 W1", full.compute(0));
    EXPECT_EQ("F0 B0 F1 B1", full.compute(1));
    Parsed today("0F0,0F1,0B0,0I1,0W1\n");
    ASSERT_EQ(TV_OK, today.status) << tv_error_message();
    EXPECT_EQ("F0 F1 B0 I1 W1", today.compute(0));
    expect_refused("0F0,0F1,0BW0,0I1,0W1\n",
                   "row 1, cell 4: position 0, micro-batch 1: I beside the "
                   "BW of torch 2.5: two spellings in one file");
    expect_refused("0F0,1SEND_F_RECV_B0",
                   "row 1, cell 2: '1SEND_F_RECV_B0' is two messages in one; "
                   "give each its own cell");
}

TEST(ScheduleCsv, ShardingOfParametersIsSkipped)
{
    tv_log_set_level(TV_LOG_OFF);
    Parsed p("0UNSHARD,0F0,0RESHARD,0UNSHARD,0B0,0RESHARD,0REDUCE_GRAD\n");
    tv_log_set_level(TV_LOG_INFO);
    ASSERT_EQ(TV_OK, p.status) << tv_error_message();
    EXPECT_EQ("F0 B0", p.all(0));
    expect_refused("0UNSHARD3", "row 1, cell 1: '0UNSHARD3' takes no micro-batch");
}

TEST(ScheduleCsv, CellsThatAreRefused)
{
    expect_refused("", "row 1, cell 1: no action");
    expect_refused(",,\n", "row 1, cell 1: no action");
    expect_refused("0F0,0B0\n1F0,X,1B0", "row 2, cell 2: 'X' does not start with a position");
    expect_refused("0F0,-1B0", "row 1, cell 2: '-1B0' does not start with a position");
    expect_refused("0F0,0Q0", "row 1, cell 2: '0Q0' is no action that trivet knows");
    expect_refused("0F0,0f0", "row 1, cell 2: '0f0' is no action that trivet knows");
    expect_refused("0F0,0 B0", "row 1, cell 2: '0 B0' is no action that trivet knows");
    expect_refused("0F0,0B", "row 1, cell 2: '0B' does not end in a micro-batch");
    expect_refused("0F0,0B0x", "row 1, cell 2: '0B0x' has something behind its micro-batch");
    expect_refused("\"0F0\",0B0", "row 1, cell 1: '\"0F0\"' does not start with a position");
    expect_refused("0F0,0B99999999999999999999",
                   "row 1, cell 2: '0B99999999999999999999' does not end in a micro-batch");
    expect_refused(std::string("0F0,0B\0000", 8),
                   "row 1, cell 2: '0B?0' is no action that trivet knows");
    expect_refused("0F0\r0B0", "row 1, cell 1: '0F0?0B0' has something behind its micro-batch");
    expect_refused("0" + std::string(100, 'F'),
                   "row 1, cell 1: '0" + std::string(46, 'F') + "' is no action that trivet knows");
}

TEST(ScheduleCsv, SizesThatAreRefused)
{
    expect_refused("0F0,0B0,1999999999F0",
                   "3 computing actions in 1 rows are too few for positions 0 to 1999999999 and "
                   "micro-batches 0 to 0");
    expect_refused("0F0,0B0,0F2147483647",
                   "row 1, cell 3: '0F2147483647' does not end in a micro-batch");
    expect_refused("0F0,0B0,0F2147483645",
                   "3 computing actions in 1 rows are too few for positions 0 to 0 and "
                   "micro-batches 0 to 2147483645");
    expect_refused("0F0,0B0\n\n1F0,1B0",
                   "2 positions cannot be shared equally by 3 rows; trivet needs as many on each "
                   "stage");
    expect_refused("0F0,0B0\n0F0,0B0,0F0", "1 positions cannot be shared equally by 2 rows; trivet "
                                           "needs as many on each stage");
    expect_refused("0F0,0B0,1F0\n1B0,1F0", "row 2, cell 1: position 1 is in row 1 already");
    expect_refused("0F0,1F0,2F0,2B0,1B0,0B0\n3F0,3B0",
                   "row 1 has more than 2 positions; trivet needs as many on each stage");
    expect_refused("0F0,0B0,0F0,0B0\n2F0,2B0,3F0,3B0", "position 1 is in no row");
    std::string rows;
    for (int i = 0; i < 1025; i++)
        rows += std::to_string(i) + "F0," + std::to_string(i) + "B0\n";
    expect_refused(rows, "row 1025: more than 1024 stages");
}

TEST(ScheduleCsv, OrdersThatAreRefused)
{
    const std::string where = "(stage 0 is row 1) schedule f.csv: stage 0";
    expect_refused("0B0,0F0", where + ", action 0: B of micro-batch 0, chunk 0: before its F");
    expect_refused("0F0,0W0,0I0", where + ", action 1: W of micro-batch 0, chunk 0: before its I");
    expect_refused("0F0,0I0,0B0", where + ", action 2: B of micro-batch 0, chunk 0: a second time");
    expect_refused("0F0,0F1,0I0,0I1,0W1", where + ": W of micro-batch 0, chunk 0 is missing");
    EXPECT_EQ(TV_OK, Parsed("0F0,0F1,0B1,0B0").status); // files need not ascend
    expect_refused("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0",
                   "(stage 0 is row 1) schedule f.csv: stage 0, action 2: RECV_B of micro-batch 1, "
                   "chunk 0: waits for ever: the stages wait for each other");
}

TEST(ScheduleCsv, AFullDiskIsSaid)
{
    Table table = Table::built("1f1b", 2, 2);
    FILE *full = std::fopen("/dev/full", "w");
    ASSERT_NE(nullptr, full);
    EXPECT_EQ(TV_IO, tv_schedule_write_csv(table.schedule(), TV_CSV_COMPUTE_ONLY, full));
    std::fclose(full);
}

TEST(ScheduleCsv, TheNameCanBePrintedAnywhere)
{
    Parsed p("0F0,0B0", "folder/\xff\n\"x\".csv");
    ASSERT_EQ(TV_OK, p.status);
    EXPECT_STREQ("__\"x\".csv", p.schedule.name);
}
