package main

import (
	"strconv"
	"time"
)

// persona is a fictitious young adult. Nobody has these names; the BSNs are of the range 9999xxxxx, which is given to no one.
type persona struct {
	BSN        string
	FamilyName string
	GivenNames string
	Sex        string
	Age        int
	City       string
	Scene      string // what the persona is there to show

	Debts        bool // known at work and income
	Nuisance     bool // known at the police
	Care         bool // client of the care provider
	Supervision  bool // client of probation
	SecretHouse  bool // secret address
	LittleCase   bool // has no case
	Resettlement bool // detention ends
}

// personas are the sixteen people of the world.
func personas() []persona {
	return []persona{
		{BSN: "999961007", GivenNames: "Daan", FamilyName: "Verzonnen", Sex: "m", Age: 19, City: "Hilversum", Debts: true, Nuisance: true, Supervision: true, Scene: "debts, nuisance and probation: from case conference to plan"},
		{BSN: "999961500", GivenNames: "Sanne", FamilyName: "Krijtbord", Sex: "f", Age: 22, City: "Hilversum", Nuisance: true, Care: true, Scene: "mental health client who refuses consent"},
		{BSN: "999962000", GivenNames: "Bilal", FamilyName: "Ontwerp", Sex: "m", Age: 17, City: "Hilversum", Care: true, Scene: "minor with youth care"},
		{BSN: "999962504", GivenNames: "Eva", FamilyName: "Maquette", Sex: "f", Age: 24, City: "Hilversum", Nuisance: true, SecretHouse: true, Scene: "victim with a secret address"},
		{BSN: "999963004", GivenNames: "Tim", FamilyName: "Bouwplaat", Sex: "m", Age: 20, City: "Veenendaal", Debts: true, LittleCase: true, Scene: "known in one domain only"},
		{BSN: "999963508", GivenNames: "Noor", FamilyName: "Aquarel", Sex: "f", Age: 26, City: "Veenendaal", Debts: true, Scene: "grows out of the target group"},
		{BSN: "999964008", GivenNames: "Ruben", FamilyName: "Schets", Sex: "m", Age: 18, City: "Veenendaal", Nuisance: true, Care: true, Scene: "crisis at night"},
		{BSN: "999964501", GivenNames: "Lotte", FamilyName: "Decor", Sex: "f", Age: 21, City: "Veenendaal", Nuisance: true, Care: true, Scene: "gives consent, then withdraws it"},
		{BSN: "999965001", GivenNames: "Yara", FamilyName: "Houtsnede", Sex: "f", Age: 23, City: "Wijk bij Duurstede", Debts: true, Scene: "threat of eviction"},
		{BSN: "999965505", GivenNames: "Jesse", FamilyName: "Proefdruk", Sex: "m", Age: 25, City: "Wijk bij Duurstede", Supervision: true, Resettlement: true, Scene: "detention ends"},
		{BSN: "999966005", GivenNames: "Mila", FamilyName: "Tekening", Sex: "f", Age: 19, City: "Wijk bij Duurstede", Care: true, Scene: "a sibling in the same file"},
		{BSN: "999966509", GivenNames: "Omar", FamilyName: "Jaarboek", Sex: "m", Age: 16, City: "Wijk bij Duurstede", Nuisance: true, Scene: "drop-out from school"},
		{BSN: "999967009", GivenNames: "Femke", FamilyName: "Roman", Sex: "f", Age: 22, City: "Zeist", Nuisance: true, Supervision: true, Scene: "goes up to the Zorg- en Veiligheidshuis"},
		{BSN: "999967502", GivenNames: "Lars", FamilyName: "Waterverf", Sex: "m", Age: 24, City: "Zeist", Debts: true, Scene: "benefit and earnings: a fraud question is refused"},
		{BSN: "999968002", GivenNames: "Amira", FamilyName: "Zeefdruk", Sex: "f", Age: 20, City: "Zeist", Debts: true, Care: true, Scene: "moves to another municipality"},
		{BSN: "999968506", GivenNames: "Koen", FamilyName: "Gravure", Sex: "m", Age: 27, City: "Zeist", Nuisance: true, Scene: "closed case, asks for access"},
	}
}

// BirthDate makes the persona as old as it should be, whenever the world is played.
func (p persona) BirthDate(now time.Time) string {
	number, _ := strconv.Atoi(p.BSN) // the BSNs above are numbers
	return now.AddDate(-p.Age, 0, -30-number%300).Format(time.DateOnly)
}

// Address is in a street that does not exist.
func (p persona) Address() string { return "Nergensstraat " + p.BSN[6:] + ", " + p.City }

// person is named by a scene by given name.
func person(givenName string) persona {
	for _, p := range personas() {
		if p.GivenNames == givenName {
			return p
		}
	}
	panic("no persona " + givenName) // a slip in this program
}
