# Perl's Cache::Memcached::Fast. What this prints and awaits: ../programs.py
use strict;
use warnings;
use Cache::Memcached::Fast;
use Time::HiRes qw(sleep time);

my ($address, $protocol, $large) = @ARGV;
my $every_byte = join('', map { chr } 0 .. 255) . "\r\nEND\r\n";
$| = 1;

sub ask {
    my ($what) = @_;
    print "$what\n";
    my $answer = <STDIN>;
    die "the harness is gone\n" unless defined $answer && $answer eq "done\n";
}

sub settle { ask('settle') }

# A test: it passes if its code returns something true and dies of nothing.
sub check {
    my ($name, $code) = @_;
    my $passed = eval { $code->() };
    my $why = $@ ? ": $@" : '';
    chomp $why;
    print $passed ? "ok $name\n" : "not ok $name$why\n";
}

sub eventually {
    my ($condition) = @_;
    my $deadline = time + 8;
    until ($condition->()) {
        return 0 if time > $deadline;
        sleep 0.05;
    }
    return 1;
}

sub same { my ($found, $expected) = @_; return defined $found && $found eq $expected }

my $client = Cache::Memcached::Fast->new({
    servers           => [$address],
    io_timeout        => 20,
    connect_timeout   => 20,
    failure_timeout   => 0,
    max_failures      => 0,
    max_size          => 2 * 1024 * 1024,
    compress_threshold => -1,
});
my $squeezing = Cache::Memcached::Fast->new({
    servers => [$address], io_timeout => 20, compress_threshold => 1000, compress_ratio => 0.9, max_size => 2 * 1024 * 1024,
});
my %many = map { ("many$_" => "value $_") } 0 .. 199;
print "client Cache::Memcached::Fast $Cache::Memcached::Fast::VERSION\n";

check('text, numbers, structures, nothing', sub {
    $client->set('text', 'value') && $client->set('number', 42) && $client->set('empty', '')
        && $client->set('object', { list => [1, 2.5, undef] }) or return 0;
    settle();
    my $object = $client->get('object');
    same($client->get('text'), 'value') && $client->get('number') == 42 && same($client->get('empty'), '')
        && $object->{list}[1] == 2.5 && !defined $object->{list}[2] && !defined $client->get('absent');
});
check('every byte', sub {
    $client->set('bytes', $every_byte);
    settle();
    same($client->get('bytes'), $every_byte);
});
check('a key of 250 bytes', sub {
    $client->set('k' x 250, 'long');
    settle();
    same($client->get('k' x 250), 'long');
});
check('a large value', sub {
    my $value = $every_byte x ($large / length $every_byte);
    $client->set('large', $value);
    settle();
    same($client->get('large'), $value);
});
check('a compressed value', sub {
    my $value = 'lake ' x ($large / 5);
    $squeezing->set('compressed', $value);
    settle();
    same($squeezing->get('compressed'), $value);
});
check('many at once', sub {
    my $stored = $client->set_multi(map { [$_, $many{$_}, 1000] } keys %many);
    settle();
    my $found = $client->get_multi(keys %many, 'absent');
    keys(%$stored) == 200 && !(grep { !$_ } values %$stored) && keys(%$found) == 200
        && !(grep { $found->{$_} ne $many{$_} } keys %many);
});
check('deletion of many', sub {
    settle();
    my $gone = $client->delete_multi('many198', 'many199', 'absent');
    delete @many{'many198', 'many199'};
    $gone->{many198} && !$gone->{absent} && !defined $client->get('many199');
});
check('add and replace', sub {
    settle();
    !$client->add('text', 'x') && $client->add('added', 'x') && $client->replace('added', 'y')
        && !$client->replace('absent', 'y') && same($client->get('added'), 'y');
});
check('append and prepend', sub {
    $client->set('joined', 'b');
    settle();
    $client->append('joined', 'c') && $client->prepend('joined', 'a') or return 0;
    settle();
    same($client->get('joined'), 'abc') && !$client->append('absent', 'x');
});
check('cas', sub {
    my $read = $client->gets('text');
    settle();
    $client->cas('text', $read->[0], 'new') && !$client->cas('text', $read->[0], 'newer') or return 0;
    settle();
    same($read->[1], 'value') && same($client->get('text'), 'new') && !defined $client->gets('absent');
});
check('many with their CAS', sub {
    settle();
    my $found = $client->gets_multi('many1', 'many2', 'absent');
    keys(%$found) == 2 && same($found->{many1}[1], 'value 1') && $found->{many1}[0] ne $found->{many2}[0]
        && $client->cas_multi(['many1', $found->{many1}[0], 'value 1'])->{many1};
});
check('counters', sub {
    $client->set('counter', 10);
    settle();
    my @steps = ($client->incr('counter', 5), $client->decr('counter', 3), 0 + $client->decr('counter', 100));
    settle();
    "@steps" eq '15 12 0' && !$client->incr('absent') && $client->incr('counter') == 1;
});
check('delete', sub {
    settle();
    $client->delete('number') && !$client->delete('number') && !defined $client->get('number');
});
check('without waiting for the answer', sub {
    $client->set("quiet$_", $_) for 0 .. 49;    # in void context it asks for none
    $client->nowait_push;
    settle();
    my $found = $client->get_multi(map { "quiet$_" } 0 .. 49);
    !grep { $found->{"quiet$_"} != $_ } 0 .. 49;
});
check('TTL, touch, get and touch', sub {
    $client->set('short', 'x', 1) && $client->set('touched', 'x') && $client->set('kept', 'x', 20) && $client->set('gat', 'x') or return 0;
    settle();
    $client->touch('touched', 1) && $client->touch('kept', 1000) && !$client->touch('absent', 1)
        && same($client->gat(1, 'gat'), 'x') or return 0;
    settle();
    eventually(sub { !%{ $client->get_multi('short', 'touched', 'gat') } }) && same($client->get('kept'), 'x');
});
check('version', sub { (values %{ $client->server_versions })[0] =~ /^1\./ });
check('all is there again after a restart', sub {
    ask('restart');
    my $found;
    eventually(sub { $found = $client->get_multi(keys %many); keys(%$found) == keys %many }) or return 0;
    !(grep { $found->{$_} ne $many{$_} } keys %many) && same($client->get('text'), 'new') && same($client->get('bytes'), $every_byte);
});
check('it is written to after a restart', sub {
    $client->set('text', 'after');
    settle();
    same($client->get('text'), 'after');
});
check('flush', sub { $client->flush_all && !defined $client->get('text') && !defined $client->get('object') });
print "end\n";
