// Package judge are the checkers: whoever acts in a simulated site tells the
// judge, which sees everything, also what no agent can know, and says which
// invariant does not hold (world.World.Fail). Nothing that acts asks it anything.
package judge
